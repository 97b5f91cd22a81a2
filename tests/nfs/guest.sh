# Turns the virtual machine into an NFS server and its client, each with its own network, and a
# cable between them. Then executes the commands of the tests.
#
# The master's directories are in /srv/export, which the client has mounted on /mnt/4.2 and on
# /mnt/3. Below it, `coarse` is a file system whose times are whole seconds. Slaves are in
# /srv/slave.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1
here=$(dirname "$0")

mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkfs.ext4 -q -F -E lazy_itable_init=1 /dev/vda
mount -o noatime /dev/vda /srv
mkdir /srv/export /srv/export/coarse /srv/slave
# Small inodes have no room for fractions of a second.
mkfs.ext4 -q -F -I 128 -E lazy_itable_init=1 /dev/vdb
mount -o noatime /dev/vdb /srv/export/coarse

ip netns add server
ip link set lo up
ip link add cable type veth peer name cable netns server
ip address add 10.0.0.2/24 dev cable
ip link set cable up
sh "$here/server.sh" install
sh "$here/server.sh" repair
mkdir /mnt/4.2 /mnt/3
mount -t nfs -o ro,hard,vers=4.2 10.0.0.1:/ /mnt/4.2
mount -t nfs -o ro,hard,vers=3,nolock 10.0.0.1:/srv/export /mnt/3
mount -t nfs -o ro,hard,vers=4.2 10.0.0.1:/coarse /mnt/4.2/coarse
mount -t nfs -o ro,hard,vers=3,nolock 10.0.0.1:/srv/export/coarse /mnt/3/coarse

port=$(echo /dev/vport*p1)
exec "$python" "$here/guest.py" <>"$port" >&0
