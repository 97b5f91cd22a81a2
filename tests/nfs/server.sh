# Controls the NFS server.
#
# usage: server.sh install | repair | start | stop | export | export-writable |
#                  renumber | withdraw | cut | join
set -eu
on_the_server() {
    nsenter --net=/run/netns/server "$@"
}
export_with() {
    echo "/srv/export 10.0.0.2(no_subtree_check,$1)" >/etc/exports
    echo "/srv/export/coarse 10.0.0.2(no_subtree_check,ro,fsid=1)" >>/etc/exports
    on_the_server exportfs -r
}
case $1 in
install)
    rm -rf /etc/exports.d
    on_the_server ip link set lo up
    on_the_server ip address add 10.0.0.1/24 dev cable
    on_the_server ip link set cable up
    mkdir -p /var/lib/nfs/rpc_pipefs /var/lib/nfs/nfsdcld
    on_the_server mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
    on_the_server mount -t nfsd nfsd /proc/fs/nfsd
    grep -q ^_rpc: /etc/passwd || echo _rpc:x:65533:65534::/run:/bin/false >>/etc/passwd
    on_the_server rpcbind
    on_the_server nfsdcld
    on_the_server rpc.mountd
    ;;
repair)
    for what in join start export; do
        sh "$0" $what
    done
    ;;
# After its start, a server gives its clients of NFS 4 ten seconds to reclaim their state
# (default: 90).
start) on_the_server rpc.nfsd -L 10 -G 10 4 ;;
stop) on_the_server rpc.nfsd 0 ;;
export) export_with ro,fsid=0 ;;
export-writable) export_with rw,no_root_squash,fsid=0 ;;
# The clients' file handles become stale, since they contain the number.
renumber) export_with ro,fsid=7 ;;
withdraw)
    : >/etc/exports
    on_the_server exportfs -r
    ;;
# The packets are lost without an error.
cut) on_the_server ip link set cable down ;;
join) on_the_server ip link set cable up ;;
esac
