#!/bin/busybox sh
# The first program of the virtual machine. Its root becomes that of the machine
# which it runs on, below the unpacked packages, both read-only: what is written
# stays in memory. `start`, the next program, comes from the kernel's command line,
# as does whatever else there is in the environment.
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
