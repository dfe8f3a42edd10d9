"""Run a bare Debian on which tests install and remove packages with Debian's own dpkg.

It has its own mount, network and process namespaces. It writes to memory, on an overlay, and never changes the tree.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from tests.kernel.plugin.test_upgrade import PINGER, assert_all_answered
from tests.runtime.machine import cgroup_removed
from tests.waiting import wait_for

UPLINK = "10.0.0.210"
POD_CIDR, NETWORK = "10.244.0.0/24", "10.244.0.0/20"

_MASKED = ("systemd-logind.service", "console-getty.service", "getty-static.service", "systemd-udevd.service")
"""Units that need devices."""
_START = """
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p run/systemd/system run/lock  # makes cnictl write its units even if no systemd runs
mount -t devpts -o ptmxmode=666 devpts dev/pts
ln -sfn pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
    [ -e "dev/$device" ] || : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir packages && mount --bind "$3" packages
ip link set lo up
ip link add eth0 type veth peer wire
ip address add 10.0.0.210/20 dev eth0
ip link set wire up
ip link set eth0 up
ip route add default via 10.0.0.1
mkdir old
pivot_root . old
cd /
umount -l old
rmdir old
exec sh -ec "$4"
"""
_IDLE = "exec sleep infinity"
_BOOT = f"""
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
ln -sf /lib/systemd/system/multi-user.target /etc/systemd/system/default.target
for unit in {" ".join(_MASKED)}; do ln -sf /dev/null /etc/systemd/system/$unit; done
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal
"""
_ENVIRONMENT = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]  # fmt: skip
_CALL = "CNI_COMMAND={verb} CNI_CONTAINERID=p$i CNI_NETNS=/run/netns/p$i CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin "
_PLUGIN = "/opt/cni/bin/cnictl-bridge"
_ADD = f"for i in {{pods}}; do ip netns add p$i; {_CALL}{_PLUGIN} </tmp/request >/tmp/p$i || exit 9; done"
_REPEAT = """
import json, sys
request = json.load(open("/tmp/request"))
request["prevResult"] = json.load(open(sys.argv[1]))
print(json.dumps(request))
"""
_LATER = f"for i in {{pods}}; do python3 /tmp/repeat /tmp/p$i | {_CALL}{_PLUGIN} || exit 9; done"
_FILES = "find /etc /opt /usr/local /var/lib/cni* /var/log/cnictl /lib/systemd/system /usr/lib/cnictl /usr/bin/cnictl"


class Machine:
    """A bare Debian. `run` runs a shell line on it as root."""

    def __init__(self, pid: int) -> None:
        """Take the pid of a process on the machine."""
        self._enter = ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]

    def command(self, *argv: str) -> list[str]:
        """Return the command that runs `argv` on the machine."""
        return [*self._enter, *_ENVIRONMENT, *argv]

    def try_to(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a shell line, which may fail."""
        return subprocess.run(
            self.command("sh", "-ec", line),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run(self, line: str) -> str:
        """Run a shell line that must succeed, and return its stdout."""
        done = self.try_to(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout

    def install(self, folder: str, *names: str) -> str:
        """Install packages with apt from a folder that `tests.deb.trees` filled."""
        files = " ".join(f"/packages/{folder}/{name}_*.deb" for name in names or ("cnictl",))
        return self.run(f"apt-get install -y --no-install-recommends --allow-downgrades {files} 2>&1")

    def init(self) -> None:
        """Set the machine up as a node."""
        self.run(f"cnictl init-node --subnet {POD_CIDR} --network {NETWORK}")
        conf = json.loads(self.run("cat /etc/cni/net.d/10-cnictl.conflist"))
        request = {"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]}
        self.run(f"cat >/tmp/request <<'EOF'\n{json.dumps(request)}\nEOF\ncat >/tmp/repeat <<'EOF'{_REPEAT}EOF")

    def pods(self, verb: str, first: int, last: int) -> None:
        """Call the installed plugin for pods `first` to `last`. Each call must succeed."""
        script = _ADD if verb == "ADD" else _LATER
        self.run(script.format(verb=verb, pods=" ".join(map(str, range(first, last + 1)))))

    def addresses(self, pods: int) -> list[str]:
        """Return the addresses of pods 1 to `pods` from the results of their ADD."""
        results = self.run("; ".join(f"tr -d '\\n' </tmp/p{number}; echo" for number in range(1, pods + 1)))
        return [json.loads(line)["ips"][0]["address"].partition("/")[0] for line in results.splitlines()]

    def json(self, line: str) -> Any:
        """Return the JSON document that a shell line prints, whatever its exit status."""
        return json.loads(self.try_to(line).stdout)

    @contextmanager
    def all_answer(self, addresses: list[str]) -> Iterator[None]:
        """Fail unless each of these addresses answers every echo request until the block ends."""
        pinger = subprocess.Popen(
            self.command("python3", "-c", PINGER, *addresses),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield
        finally:
            said, complaints = pinger.communicate("")
        assert_all_answered(said, complaints)

    def network(self) -> str:
        """Return links, addresses, routes, rules and forwarding, once no IPv6 address is tentative."""
        wait_for(lambda: "tentative" not in self.run("ip -6 address"), "no address is tentative")
        return self.run(
            "ip -o link; ip -o address; ip route show table all; ip -6 route show table all; "
            "nft -s list ruleset; iptables-save | grep -v '^[#:]' || true; cat /proc/sys/net/ipv4/ip_forward"
        )

    def files(self) -> list[str]:
        """Return the paths that cnictl or its package could have left, with the files' checksums."""
        listed = self.run(f"{_FILES} -type f -exec cksum {{}} + -o -printf '%p\\n' 2>/dev/null || true")
        passing = ("/etc/ld.so.cache", "/etc/.pwd.lock", "__pycache__", "/etc/cni", "/opt/cni")
        return sorted(line for line in listed.splitlines() if not any(part in line for part in passing))

    def state(self) -> str:
        """Return dpkg's state of the package cnictl, such as `ii` or `rc`; empty if dpkg does not know it."""
        return self.try_to("dpkg-query -W -f '${db:Status-Abbrev}' cnictl 2>/dev/null").stdout.strip()


@contextmanager
def machine(trees: Path, booted: bool = False) -> Iterator[Machine]:
    """Yield a new machine, and remove it afterwards. With `booted`, systemd runs on it."""
    with tempfile.TemporaryDirectory() as folder, _cgroup() if booted else nullcontext() as cgroup:
        unshare = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        if cgroup is not None:
            into = f'echo $$ >{cgroup}/cgroup.procs; exec "$@"'
            unshare = ["sh", "-ec", into, "sh", *unshare, "--cgroup"]
        arguments = [folder, str(trees / "base"), str(trees), _BOOT if booted else _IDLE]
        holder = subprocess.Popen([*unshare, "sh", "-ec", _START, "sh", *arguments], stdin=subprocess.DEVNULL)
        try:
            program = "systemd" if booted else "sleep"
            wait_for(lambda: holder.poll() is not None or _first(holder.pid, program) != 0, "the machine runs", 20)
            assert holder.poll() is None, "the machine could not be made"
            made = Machine(_first(holder.pid, program))
            if booted:
                up = "systemctl is-system-running"
                wait_for(lambda: made.try_to(up).stdout.strip() in ("running", "degraded"), "systemd is up", 60)
            yield made
        finally:
            holder.kill()
            holder.wait(10)


@contextmanager
def _cgroup() -> Iterator[Path]:
    """Yield a new cgroup for systemd, and remove it afterwards."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    tree = next((path for _, path, kind, *_ in mounts if kind == "cgroup2"), "")
    assert tree, "cgroup2 is not mounted here"
    cgroup = Path(tree) / f"cnictl-deb-{os.getpid()}"
    cgroup.mkdir()
    try:
        yield cgroup
    finally:
        for inner, _, _ in os.walk(cgroup, topdown=False):
            wait_for(partial(cgroup_removed, inner), f"the cgroup {inner} is removed")


def _first(above: int, program: str) -> int:
    """Return the pid of the machine's first process; 0 until it has become `program`."""
    try:
        children = Path(f"/proc/{above}/task/{above}/children").read_text(encoding="utf-8").split()
        name = Path(f"/proc/{children[0]}/comm").read_text(encoding="utf-8") if children else ""
    except FileNotFoundError:
        return 0
    return int(children[0]) if name == f"{program}\n" else 0
