# Boots the second machine of the tests, as the first process of its own namespaces for
# processes, mounts and the host name.
#
# usage: machine.sh FILES MASTER SLAVE CGROUP
#
# FILES contains the files for /etc and /usr/local, and systemd's units. The directories MASTER
# and SLAVE become /mnt/master/var and /srv/plone/var; in each of them, filestorage contains
# Data.fs. CGROUP is the name of a control group.
set -eu
files=$1 master=$2 slave=$3 cgroup=$4

mount --make-rprivate /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$cgroup"
echo $$ >"/sys/fs/cgroup/$cgroup/cgroup.procs"

mkdir -p "$files/mnt/master/var" "$files/srv/plone/var" "$files/srv/plone/etc"
cat >"$files/srv/plone/etc/zeo.conf" <<EOF
<filestorage 1>
  path /srv/plone/var/filestorage/Data.fs
</filestorage>
EOF
mount --bind "$master" "$files/mnt/master/var"
mount --bind "$slave" "$files/srv/plone/var"
for directory in etc srv mnt usr/local/bin usr/local/sbin usr/lib/systemd/system; do
    mount --rbind "$files/$directory" "/$directory"
done
mount -t tmpfs tmpfs /var/log
mkdir /var/log/supervisor
mount -t tmpfs tmpfs /run

exec unshare --cgroup sh -c '
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    exec env -i container=test PATH=/usr/local/bin:/usr/bin:/bin \
        /lib/systemd/systemd --system --unit=fssync-test.target --show-status=0
'
