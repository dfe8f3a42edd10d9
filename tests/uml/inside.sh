#!/bin/bash
# Process 1 of the user-mode kernel that neighbours.sh starts: set up a node with a pod and other hosts beside it, and
# fill its neighbour table.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
cnictl="$CHECKOUT/.venv/bin/cnictl"

prepare() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    for place in /run /var /opt /usr/local/lib; do mount -t tmpfs -o mode=755 tmpfs $place; done
    mkdir -p /run/etc /run/netns /var/lib /var/log /opt/cni/bin
    cp -a /etc/alternatives /etc/ld.so* /etc/passwd /etc/group /etc/protocols /etc/services /etc/nsswitch.conf /run/etc/
    mount --bind /run/etc /etc
    cp /usr/lib/cni/portmap /usr/lib/cni/loopback /opt/cni/bin/
    mount --bind /opt/cni/bin /usr/lib/cni # so that the machine's folder does not change
    for module in veth bridge br_netfilter nf_tables nf_conntrack_netlink; do modprobe -d "$MODULES" $module; done
    mount --bind /dev/null /usr/sbin/xtables-nft-multi # this kernel does not support what iptables needs
}
node() {
    ip link set lo up
    ip netns add lan
    ip netns add pod
    ip link add eth0 type veth peer name lan0 netns lan
    ip link set eth0 up
    ip address add 10.0.0.210/20 dev eth0
    ip -n lan link set lo up
    ip -n lan link set lan0 up
    ip -n lan address add 10.0.0.1/20 dev lan0
    ip -n lan route add local 10.0.2.0/23 dev lo # every address in it answers
    ip route add default via 10.0.0.1
    ip -n lan route add 10.244.0.0/24 via 10.0.0.210
    # this kernel has no NAT
    $cnictl init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20 --no-nat >/dev/null
    python3 -c "import json; c = json.load(open('/etc/cni/net.d/10-cnictl.conflist'))
print(json.dumps({'cniVersion': c['cniVersion'], 'name': c['name'], **c['plugins'][0]}))" |
        CNI_COMMAND=ADD CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \
            /opt/cni/bin/cnictl-bridge >/dev/null
}
state() { # HOST: print whether the pod reaches it, and doctor's findings
    reached=lost
    ip netns exec pod ping -n -q -c1 -W2 "$1" >/dev/null && reached=reached
    findings="$($cnictl doctor --skip kernel-lacks -o json 2>/run/said |
        python3 -c 'import json, sys; print(*(finding["id"] for finding in json.load(sys.stdin)["items"]))')"
    echo "$1 $reached; doctor: ${findings:-nothing}"
    said="$said$reached:$findings "
}

prepare
node
said=""
echo
echo "== a node of Linux $(uname -r)"
state 10.0.2.7
echo "== as many neighbours as the table may hold"
sysctl -qw net.ipv4.neigh.default.gc_thresh1=10 net.ipv4.neigh.default.gc_thresh2=60 net.ipv4.neigh.default.gc_thresh3=60
for last in $(seq 1 70); do
    ip neigh replace "10.0.3.$last" lladdr 02:00:00:00:03:01 nud reachable dev eth0 2>/dev/null
done
state 10.0.2.8
echo "== sysctl -w net.ipv4.neigh.default.gc_thresh3=8192"
sysctl -qw net.ipv4.neigh.default.gc_thresh3=8192
state 10.0.2.9
if [ "$said" = "reached: lost:neighbours-full reached: " ]; then
    echo "== end: as it should be"
else
    echo "== end: not as it should be"
fi
sync
echo o >/proc/sysrq-trigger
sleep 10
