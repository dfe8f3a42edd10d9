"""Bring up a lab and leave its holder running. `lab.Lab` starts this as a program; it ends once the lab is up.

Its child, the holder, is process 1 of the lab's pid namespace and holds the underlay's network namespace. When the
holder ends for any reason, the kernel ends every process of the lab, and with them every namespace and mount. Each
machine is process 1 of a pid namespace below it, with its own network and root file system.

The lab's processes have no rights on the host, even when root starts the lab: they live in a user namespace. Its root
maps to the user who starts the lab or, if that is root, to a user that nobody else on the host uses (`owners`).
"""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from cnictl.core.bridge import ensure_bridge
from cnictl.core.cidr import parse_address, parse_cidr, parse_interface
from cnictl.core.errors import Problem
from cnictl.core.netlink import rtnetlink
from cnictl.lab import root
from cnictl.lab.plan import (
    GATEWAY,
    GATEWAY6,
    OUTSIDE_ALSO,
    OUTSIDE_ALSO6,
    OUTSIDE_GATEWAY,
    OUTSIDE_GATEWAY6,
    UPLINK,
    Machine,
)
from cnictl.lab.privilege import enter_user_namespace, explained, give_up_root
from cnictl.lab.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    allow_inspection,
    rename_process,
    setns,
    unshare,
)

_BRING_UP_SECONDS = 20.0
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_SCM_CREDENTIALS = 2
_LOOPBACK = 1  # the index of `lo` in every network namespace
_FRESH_SYSCTLS = {"ipv4/ip_forward": "0", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0"}
# duplicate address detection would delay every lab by a second, and no other host can use the router's addresses
_ROUTER6_SYSCTLS = {"ipv6/conf/all/forwarding": "1", "ipv6/conf/default/accept_dad": "0"}


def main() -> None:
    """Read the order from argv, bring the lab up and print it as JSON: `{"holder": PID, "pids": {NAME: PID}}`.

    On failure print `{"error": …, "hint": …}` and leave nothing behind.
    """
    order = json.loads(sys.argv[1])
    everyone = [Machine(**form) for form in order["machines"]]
    program = root.Program(order["interpreter"], order["source"], tuple(order["folders"]))
    try:
        answer = _bring_up(everyone, program, order["lifeline"])
    except Problem as problem:
        answer = {"error": problem.message, "hint": problem.hint}
    except OSError as error:
        answer = {"error": error.strerror or str(error), "hint": ""}
    print(json.dumps(answer), flush=True)


def _bring_up(everyone: list[Machine], program: root.Program, lifeline: int) -> dict[str, Any]:
    as_root = os.geteuid() == 0
    needed = [f"{program.source}/cnictl/__init__.py", os.path.realpath(program.interpreter)]
    try:
        if as_root:
            unshare(CLONE_NEWNS)
        else:
            enter_user_namespace(0, proc="/proc")
        root.stage(program)
    except OSError as error:
        raise explained(error, as_root) from None
    try:
        maps = give_up_root(needed, f"{root.HOST}/proc") if as_root else None
        enter_user_namespace(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID, f"{root.HOST}/proc", maps)
    except OSError as error:
        raise explained(error, as_root) from None
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # the kernel translates a sender's pid for the reader, so this process learns each machine's pid on the host
    here.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    holder = os.fork()
    if holder == 0:
        here.close()
        _hold(everyone, program, there, lifeline)
    there.close()
    try:
        return {"holder": holder, "pids": _await(here, everyone)}
    except OSError:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        raise


def _await(channel: socket.socket, everyone: list[Machine]) -> dict[str, int]:
    """Return each machine's pid on the host, once all have reported. Raises OSError with the first failure."""
    channel.settimeout(_BRING_UP_SECONDS)
    pids: dict[str, int] = {}
    while len(pids) < len(everyone):
        data, ancillary, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not data:
            raise OSError(errno.EIO, "the holder ended before the lab was up")
        message = json.loads(data)
        if "error" in message:
            raise OSError(errno.EIO, message["error"])
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == _SCM_CREDENTIALS:
                pids[message["name"]] = _CREDENTIALS.unpack(payload)[0]
    return pids


def _hold(everyone: list[Machine], program: root.Program, channel: socket.socket, lifeline: int) -> NoReturn:
    """Be the holder: process 1 of the lab's pid namespace."""
    with _reporting(channel):
        os.setsid()
        _silence(f"{root.HOST}/dev/null")
        rename_process("cnictl-lab")
        networks = _make_link(everyone)
        for machine in everyone:
            _start(machine, everyone, program, networks[machine.name], channel, lifeline)
        root.leave_host()
        allow_inspection()
        channel.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # process 1 inherits the lab's orphans: let the kernel reap them
    if lifeline < 0:
        _sleep()
    watch = select.poll()
    watch.register(lifeline, select.POLLHUP)
    watch.poll()
    os._exit(0)


def _make_link(everyone: list[Machine]) -> dict[str, int]:
    """Make the underlay in this process's namespace, and a network for each machine with its uplink on the underlay.

    Return an open namespace descriptor for every machine. Raises OSError, Problem.
    """
    own = os.open(f"{root.HOST}/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    networks = {}
    with rtnetlink.Netlink() as underlay:
        dual_stack = any(machine.interface6 for machine in everyone)
        _set_sysctls({**_FRESH_SYSCTLS, "ipv4/ip_forward": "1", **(_ROUTER6_SYSCTLS if dual_stack else {})})
        underlay.call(rtnetlink.set_up(_LOOPBACK))
        lan = ensure_bridge(underlay, "lan", parse_interface(GATEWAY, "gateway"), nf_call=False)
        if dual_stack:
            _add_address(underlay, lan.index, GATEWAY6)
        for machine in everyone:
            unshare(CLONE_NEWNET)
            network = os.open(f"{root.HOST}/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            networks[machine.name] = network
            _set_sysctls(_FRESH_SYSCTLS)
            on_lan = lan.index if machine.pod_cidr else 0
            macs = [b"\x02" + os.urandom(5) for _ in range(2)]
            pair = rtnetlink.add_veth_pair(machine.name, macs[0], on_lan, UPLINK, macs[1], network, 1500)
            underlay.call(pair)
            with rtnetlink.Netlink() as netlink:
                _address(netlink, machine)
            if not machine.pod_cidr:
                port = rtnetlink.get_link(underlay, machine.name)
                ways = [(OUTSIDE_GATEWAY, OUTSIDE_ALSO, machine.interface),
                        (OUTSIDE_GATEWAY6, OUTSIDE_ALSO6, machine.interface6)]  # fmt: skip
                for gateway, also, via in ways[: 2 if dual_stack else 1]:
                    if port is not None:
                        _add_address(underlay, port.index, gateway)
                        _add_route(underlay, port.index, also, via.partition("/")[0])
    setns(own, CLONE_NEWNET)
    os.close(own)
    return networks


def _address(netlink: rtnetlink.Netlink, machine: Machine) -> None:
    uplink = rtnetlink.get_link(netlink, UPLINK)
    if uplink is None:
        raise OSError(errno.ENODEV, f"{machine.name}: the kernel did not create {UPLINK}")
    if machine.interface6:
        _set_sysctls({f"ipv6/conf/{UPLINK}/accept_dad": "0"})
    netlink.call(rtnetlink.set_up(_LOOPBACK), rtnetlink.set_up(uplink.index))
    ways = [(machine.interface, machine.route, machine.gateway), (machine.interface6, machine.route6, machine.gateway6)]
    for interface, route, gateway in ways:
        if not interface:
            continue
        _add_address(netlink, uplink.index, interface)
        _add_route(netlink, uplink.index, route, gateway)
        if not machine.pod_cidr:
            _add_address(netlink, _LOOPBACK, OUTSIDE_ALSO6 if interface == machine.interface6 else OUTSIDE_ALSO)


def _add_address(netlink: rtnetlink.Netlink, index: int, text: str) -> None:
    interface = parse_interface(text)
    netlink.call(rtnetlink.add_address(index, interface.packed, interface.prefix))


def _add_route(netlink: rtnetlink.Netlink, index: int, destination: str, gateway: str) -> None:
    """Add a route to a CIDR, or to `default`."""
    cidr = None if destination == "default" else parse_cidr(destination, "route")
    packed, prefix = (cidr.packed, cidr.prefix) if cidr else (None, 0)
    netlink.call(rtnetlink.add_route(index, packed, prefix, parse_address(gateway, "gateway")))


def _start(
    machine: Machine,
    everyone: list[Machine],
    program: root.Program,
    network: int,
    channel: socket.socket,
    lifeline: int,
) -> None:
    """Start `machine`'s process 1. It becomes a child of this process when the intermediate process has ended."""
    intermediate = os.fork()
    if intermediate:
        os.close(network)
        os.waitpid(intermediate, 0)
        return
    with _reporting(channel):
        setns(network, CLONE_NEWNET)
        unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID)
        if os.fork():
            os._exit(0)
        if lifeline >= 0:
            os.close(lifeline)
        root.build(machine, everyone, program)
        socket.sethostname(machine.name)
        rename_process(machine.name)
        allow_inspection()
        channel.send(json.dumps({"name": machine.name}).encode())
        channel.close()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _sleep()


def _sleep() -> NoReturn:
    while True:
        signal.pause()


def _set_sysctls(values: dict[str, str]) -> None:
    """Set `net` sysctls of this network namespace, because a new one inherits the host's. Raises OSError."""
    for name, value in values.items():
        with open(f"{root.HOST}/proc/sys/net/{name}", "w", encoding="utf-8") as file:
            file.write(value)


def _silence(null: str) -> None:
    descriptor = os.open(null, os.O_RDWR)
    for standard in range(3):
        os.dup2(descriptor, standard)
    os.close(descriptor)


@contextlib.contextmanager
def _reporting(channel: socket.socket) -> Iterator[None]:
    """Send an error in a forked process to the process that started the lab, and end this process."""
    try:
        yield
    except (OSError, Problem) as error:
        message = error.message if isinstance(error, Problem) else error.strerror
        channel.send(json.dumps({"error": message or str(error)}).encode())
        os._exit(1)
