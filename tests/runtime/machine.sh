#!/bin/sh
# Process 1 of a throw-away machine. It mounts an overlay over this host's root, so that it can't change it, sets up a
# network with an uplink, and then reaps processes until its stdin ends.
# It runs inside `unshare --net --mount --pid --ipc --uts --fork` with private mount propagation.
# Arguments: an empty folder to mount on, then each folder that the tests need and the overlay lacks because it is on
# another file system than / or below /tmp or /run.
set -eu

work=$1
shift
root=$work/root
mount -t tmpfs machine "$work"
mkdir "$root"

overlay() { # lower target name
    mkdir -p "$work/$3/upper" "$work/$3/work" "$2"
    mount -t overlay machine -o "lowerdir=$1,upperdir=$work/$3/upper,workdir=$work/$3/work" "$2"
}
overlay / "$root" host

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" # a new sysfs, because /sys/class/net shows the links of this network namespace
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
# containerd and podman mount overlays there, which can't have an overlay below
for folder in run tmp dev/shm var/lib/containers var/lib/containerd; do
    mkdir -p "$root/$folder"
    mount -t tmpfs -o mode=755 machine "$root/$folder"
done
chmod 1777 "$root/tmp" "$root/dev/shm"
serial=0
for folder in "$@"; do
    serial=$((serial + 1))
    overlay "$folder" "$root$folder" "folder$serial"
done

cd "$root"
pivot_root . .
umount -l .

# start like a host that never had cnictl or pods
rm -rf /etc/cni /etc/cnictl /etc/containers/containers.conf /opt/cni /usr/local/lib/cnictl \
    /var/lib/cni /var/lib/cnictl /var/log/cnictl
mkdir -p /run/lock /run/containerd /srv

hostname machine
ip link set lo up
ip netns add outside
ip link add uplink type veth peer name eth0 netns outside
ip link set uplink up
ip address add 10.0.0.210/20 dev uplink
# the outside host has a route to the nodes only: a pod's packets get no answer unless they are masqueraded
ip -n outside link set lo up
ip -n outside link set eth0 up
ip -n outside address add 10.0.0.1/20 dev eth0
ip -n outside address add 192.0.2.1/32 dev lo
ip route add default via 10.0.0.1

# with SIGCHLD ignored, the kernel reaps the processes that conmon and shims leave to process 1
exec python3 -ISc '
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("up", flush=True)
sys.stdin.read()
'
