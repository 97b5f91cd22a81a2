#!/bin/busybox sh
# The first program of the virtual machine. The new root is an overlay: the unpacked packages
# over the root of the machine that runs the tests, both read-only, with all changes in memory.
# The kernel's command line sets `start`, the next program, and other variables.
export PATH=/bin
/bin/busybox --install /bin
mkdir -p /proc /dev /host /packages /memory /new
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do
    insmod "$module"
done
for share in host packages; do
    mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro $share /$share
done
mount -t tmpfs tmpfs /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/packages:/host,upperdir=/memory/upper,workdir=/memory/work root /new
mount --move /proc /new/proc
mount --move /dev /new/dev
exec switch_root /new /bin/sh "$start"
