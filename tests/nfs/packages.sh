# Builds the files from which the virtual machine boots, from Debian's packages: its kernel, a
# first program, and the tools of an NFS server. Nothing is installed.
#
# usage: packages.sh DIRECTORY
#
# Creates `vmlinuz`, `initramfs` and `root` in DIRECTORY, which must exist. In the virtual machine
# `root` is mounted over the root of this machine.
set -eu
first_program=$(readlink -f "$(dirname "$0")/first.sh")
cd "$1"

# Separate lists, archives and locks, so that other apt processes do not interfere.
mkdir -p apt/lists/partial apt/cache/archives/partial
cat >apt/conf <<END
Dir::State::lists "$PWD/apt/lists";
Dir::Cache "$PWD/apt/cache";
Debug::NoLocking "1";
APT::Sandbox::User "root";
END
export APT_CONFIG="$PWD/apt/conf"
apt-get update -qq
# If they were installed, they would start an NFS server on this machine.
apt-get install -y -qq --download-only --no-install-recommends nfs-kernel-server nfs-common
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p')
(cd apt/cache/archives && apt-get download -qq "$kernel" busybox-static)

# Packages may still contain /bin, /lib and /sbin, which are links.
mkdir -p root/usr/bin root/usr/lib root/usr/sbin
ln -s usr/bin usr/lib usr/sbin root
for archive in apt/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$archive" |
        tar -x --keep-directory-symlink -C root --exclude=./usr/share --exclude='./usr/lib/debug*'
done
rm -r apt
version=${kernel#linux-image-}
modules=root/lib/modules/$version
mv "root/boot/vmlinuz-$version" vmlinuz
root/usr/bin/busybox depmod -b root "$version"

# Modules by name, each after those that it needs. A missing one is part of the kernel.
in_order() {
    for name in "$@"; do
        line=$(grep "/$name\.ko[.xz]*:" "$modules/modules.dep") || continue
        echo "${line#*:}" | tr ' ' '\n' | tac
        echo "${line%%:*}"
    done | awk 'NF && !seen[$0]++'
}
mkdir -p first/bin first/modules
cp root/usr/bin/busybox first/bin
cp "$first_program" first/init
chmod +x first/init
number=100
for module in $(in_order virtio_pci virtio_blk virtio_console 9pnet_virtio 9p overlay \
    crc32c_generic ext4 veth nfsd nfs nfsv3 nfsv4); do
    number=$((number + 1))
    cp "$modules/$module" "first/modules/$number-${module##*/}"
done
rm -r root/lib/modules
(cd first && find . | ./bin/busybox cpio -o -H newc 2>/dev/null) >initramfs
rm -r first
