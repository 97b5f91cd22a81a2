# What befalls the NFS server.
#
# usage: server.sh install | start | stop | export | withdraw | cut | join
set -eu
on_the_server() {
    nsenter --net=/run/netns/server "$@"
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
# A server that starts gives its clients of NFS 4 ten seconds to claim what they
# had, 90 by default.
start) on_the_server rpc.nfsd -L 10 -G 10 4 ;;
stop) on_the_server rpc.nfsd 0 ;;
export)
    echo "/srv/export 10.0.0.2(ro,no_subtree_check,fsid=0)" >/etc/exports
    on_the_server exportfs -r
    ;;
withdraw)
    : >/etc/exports
    on_the_server exportfs -r
    ;;
# Nothing says that the packets are lost.
cut) on_the_server ip link set cable down ;;
join) on_the_server ip link set cable up ;;
esac
