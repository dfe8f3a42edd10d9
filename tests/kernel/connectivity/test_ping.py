"""`cnictl ping` shows what answers, why a target does not answer, and the path of the request.

CNICTL_SOAK=1 also tests every pair of source and target, and the faults whose causes take longest to find.
"""

import json
import re
from collections.abc import Iterator
from itertools import product

import pytest

from cnictl.lab.lab import Lab, Node
from tests.kernel.cluster import GUARD, Cluster, shell
from tests.kernel.commands import Lines, at_terminal, call, cnictl, start_pod
from tests.kernel.connectivity.pings import FAST, World, done_and_undone, serving
from tests.kernel.hints import applies, matches
from tests.kernel.node.test_dual_stack import set_up
from tests.schemas import checked
from tests.soak import SOAK
from tests.waiting import wait_for

pytestmark = pytest.mark.once

long = pytest.mark.skipif(not SOAK, reason="takes minutes: make soak")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab(nodes=2, dual_stack=True) as lab:
        set_up(lab, both=True)
        cluster = Cluster(lab)
        web, db = start_pod(cluster.here, "web"), start_pod(cluster.here, "db")
        far = start_pod(cluster.there, "far")
        listed = shell(cluster.there, "ip netns exec far ip -6 -o address show dev eth0 scope global")
        far6 = listed.split()[3].partition("/")[0]
        with serving(far, far.address, db.address), serving(far, far6, db.address):
            yield World(cluster, web, db, far, far6, lab.outside)


_SOURCES = ("host", "web", "pod", "{web}", "/run/netns/web")
_TARGETS = ("db", "host", "external", "{far}", "{far}:80", "{far}:53/udp", "pod:81", "{far6}")
_SOME = (
    ("host", "db"), ("web", "host"), ("pod", "{far}"), ("{web}", "external"), ("/run/netns/web", "{far}:80"),
    ("web", "{far}:53/udp"), ("host", "pod:81"), ("web", "{far6}"),
)  # fmt: skip


@pytest.mark.parametrize(("source", "to"), list(product(_SOURCES, _TARGETS)) if SOAK else _SOME)
def test_each_source_reaches_each_target(world: World, source: str, to: str) -> None:
    known = {"web": world.web.address, "far": world.far.address, "far6": world.far6}
    done = world.ping(source.format(**known), to.format(**known))
    assert done.status == 0, done
    assert re.search(r"^reply from \S+: seq=1 time=\d+\.\d{3} ms$", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^1 sent, 1 answered, 0 % lost\ntime: [\d.]+ ms", done.stdout, re.MULTILINE)


def test_ipv6_is_chosen_by_option_and_in_brackets_with_a_port(world: World) -> None:
    assert world.json("web", "external", "-6")["to"]["address"] == world.outside.address6
    assert world.json("web", f"[{world.far6}]:80")["to"] == {
        "name": world.far6, "kind": "address", "address": world.far6, "protocol": "tcp", "port": 80, "dns_server": None,
    }  # fmt: skip
    done = world.ping("web", world.far6, "-4")
    assert (done.status, done.stderr.splitlines()[0]) == (1, f"cnictl: {world.far6} has no IPv4 address")


def test_name_of_a_lab_node_has_both_families(world: World) -> None:
    there = world.cluster.there
    for option, address in (("-4", there.address), ("-6", there.address6)):
        assert world.json("host", there.name, option)["to"]["address"] == address


def test_ipv6_address_of_a_name_is_asked_from_an_ipv4_server(world: World) -> None:
    made = f"mkdir -p /etc/netns/web; echo nameserver {world.far.address} >/etc/netns/web/resolv.conf"
    with done_and_undone(world, made, "rm -r /etc/netns/web"):
        done = world.ping("web", "db.example", "-6")
    assert done.stderr.splitlines() == [
        "cnictl: db.example has no IPv6 address", f"  hint: its addresses: {world.db.address}"
    ]  # fmt: skip


def test_broadcast_address_of_the_senders_own_link_is_refused(world: World) -> None:
    done = world.ping("host", "10.0.15.255")
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert "10.0.15.255 is a broadcast address" in done.stderr


def test_link_local_address_is_reached_on_its_link(world: World) -> None:
    shown = json.loads(shell(world.here, "ip -j -6 address show dev cni0 scope link"))
    gateway = next(address["local"] for link in shown for address in link.get("addr_info", ()) if "local" in address)
    document = world.json("web", f"[{gateway}%eth0]:99/udp", "--trace")
    assert (document["refused"], document["from"]["address"][:4]) == (1, "fe80")
    assert {"arrives", "delivered"} <= {step["place"] for step in document["trace"]}


def test_answers_are_counted_and_timed_in_json(world: World) -> None:
    document = world.json("web", "db", "-c", "3", "-i", "0.02")
    assert (document["sent"], document["answered"], document["loss"]) == (3, 3, 0)
    assert [item["seq"] for item in document["items"]] == [1, 2, 3]
    times = sorted(item["time_ms"] for item in document["items"])
    assert document["rtt_ms"] == {"min": times[0], "p50": times[1], "p95": times[2], "p99": times[2], "max": times[2]}


def test_refusal_of_a_closed_port_is_an_answer_in_udp_and_a_failure_in_tcp(world: World) -> None:
    name, words, _ = world.cause("web", f"{world.far.address}:99")
    assert name == "refused"
    assert words.startswith(f"{world.far.address} answers: connection refused: nothing listens on TCP port 99 there")
    done = world.ping("web", f"{world.far.address}:99/udp")
    assert done.status == 0
    assert "1 sent, 1 answered (1 refused), 0 % lost" in done.stdout
    assert "nothing listens on UDP port 99" in done.stdout


@pytest.mark.parametrize(
    ("source", "protocol"),
    list(product(("web", "host"), ("icmp", "tcp", "udp"))) if SOAK else [("web", "tcp"), ("host", "udp")],
)
def test_rule_that_drops_is_named_and_ends_the_trace(world: World, source: str, protocol: str) -> None:
    hook = "output" if source == "host" else "forward"
    match = {"icmp": "icmp type echo-request", "tcp": "tcp dport 80", "udp": "udp dport 53"}[protocol]
    to = world.far.address + {"icmp": "", "tcp": ":80", "udp": ":53/udp"}[protocol]
    rule = f"ip daddr {world.far.address} {match} drop"
    make = f"nft add table ip deny; nft add chain ip deny c '{{ type filter hook {hook} priority 5; }}'"
    with done_and_undone(world, f"{make}; nft add rule ip deny c {rule}", "nft delete table ip deny"):
        document = world.json(source, to, "--trace")
    assert document["cause_name"] == "dropped-here"
    assert f'dropped on this node by rule "{rule}" of chain ip deny c' in document["cause"]
    last = document["trace"][-1]
    assert last == {"packet": "request", "place": hook, "what": f"ip deny c: {rule}", "drops": True}
    assert [step["drops"] for step in document["trace"][:-1]].count(True) == 0


@applies("probe.drop_hint.for_drop: {}")
@pytest.mark.parametrize("native", [True, False])
def test_rule_that_drops_is_deleted_by_the_hint(world: World, native: bool) -> None:
    chain = "nft add table inet mine; nft add chain inet mine drops '{ type filter hook forward priority 10; }'"
    rule = f"{chain}; nft add rule inet mine drops ip daddr {world.far.address} counter drop"
    if not native:
        rule = f"iptables -I FORWARD -d {world.far.address} -m length --length 0:999 -j DROP"
    with done_and_undone(world, rule, "nft delete table inet mine" if native else "cnictl apply"):
        name, words, hint = world.cause("web", world.far.address)
        assert (name, "--length 0:999" in words) == ("dropped-here", not native)
        assert hint["command"].startswith("nft delete rule inet mine drops handle" if native else "iptables -D FORWARD")
        world.sh(hint["command"])
        assert world.json("web", world.far.address)["result"] == "ok"


def test_rule_that_rejects_on_this_node_is_distinguished_from_a_closed_port(world: World) -> None:
    make = "nft add table ip deny; nft add chain ip deny c '{ type filter hook forward priority 5; }'"
    rule = "nft add rule ip deny c tcp dport 80 reject with tcp reset"
    with done_and_undone(world, f"{make}; {rule}", "nft delete table ip deny"):
        name, words, _ = world.cause("web", f"{world.far.address}:80")
    assert name == "rejected-here"
    assert 'refused on this node by rule "tcp dport 80 reject with tcp reset" of chain ip deny c' in words


def test_rule_of_the_bridge_family_is_named_between_two_pods(world: World) -> None:
    make = "nft add table bridge deny; nft add chain bridge deny c '{ type filter hook forward priority 5; }'"
    rule = f"ip daddr {world.db.address} icmp type echo-request drop"
    with done_and_undone(world, f"{make}; nft add rule bridge deny c {rule}", "nft delete table bridge deny"):
        document = world.json("web", "db", "--trace")
    assert f'dropped on this node by rule "{rule}" of chain bridge deny c' in document["cause"]
    assert document["trace"][-1]["what"] == f"bridge deny c: {rule}"


@applies("probe.why._accept: cnictl apply")
def test_hint_restores_a_missing_accept_rule(world: World) -> None:
    to = f"{world.far.address}:80"
    with done_and_undone(world, GUARD, "nft delete table ip guard"):
        name, words, hint = world.cause("web", to)
        assert (name, hint["command"]) == ("dropped-here", "cnictl apply")
        assert "dropped on this node by the policy drop of chain ip guard forward" in words
        world.sh(hint["command"])
        assert world.json("web", to)["result"] == "ok"
    world.sh("cnictl apply")


@applies("probe.causes_local.target_port_unfit: cnictl apply")
def test_bridge_port_of_the_target_pod_is_checked(world: World) -> None:
    veth = json.loads(cnictl(world.here, "ipam", "show", "db", "-o", "json").stdout)["items"][0]["host_veth"]["name"]
    world.sh(f"ip link set {veth} nomaster")
    name, words, hint = world.cause("host", "db")
    assert (name, hint["command"]) == ("port-unfit", "cnictl apply")
    assert words == f"the host veth {veth} of pod {world.db.address} is not on cni0"
    world.sh(hint["command"])
    wait_for(lambda: world.json("host", "db")["result"] == "ok", "the pod answers again")


def test_pod_whose_link_is_down_or_without_its_address_is_named_from_both_ends(world: World) -> None:
    limp = start_pod(world.here, "limp")
    try:
        limp.run("ip", "address", "delete", f"{limp.address}/24", "dev", "eth0")
        for ends in (("host", "limp"), ("limp", "host")):
            assert world.cause("-4", *ends)[:2] == (
                "no-address", f"pod limp no longer has its address {limp.address} on its link eth0"
            )  # fmt: skip
        limp.run("ip", "link", "set", "eth0", "down")
        for ends in (("host", "limp"), ("web", "limp"), ("limp", "host")):
            name, words, _ = world.cause("-4", *ends)
            assert (name, f"link eth0 of pod {limp.address} is down" in words) == ("pod-link-down", True), words
    finally:
        call(world.here, "DEL", "limp")
        world.sh("ip netns delete limp")


def test_icmp_error_names_the_cause_in_ping_and_test_connectivity_alike(world: World) -> None:
    router = world.cause("web", "8.8.8.8")
    rows = world.cluster.test("--from", "web", "--external", "8.8.8.8", "--only", "external").checks
    checked_row = next(row for row in rows if row["to"] == "8.8.8.8")
    assert router[0] == "refused"
    assert router[1] == checked_row["cause"]
    assert router[2] == checked_row["hint"]


@applies("probe.causes_plain.loopback_down: nsenter --net={} ip link set lo up")
def test_pod_that_asks_itself_needs_its_loopback_link(world: World) -> None:
    for to in ("web", "127.0.0.1"):
        world.sh("ip -n web link set lo down")
        name, words, hint = world.cause("web", to)
        assert (name, words) == ("loopback-down", "web sends to itself, but its link lo is down")
        world.sh(hint["command"])
        assert world.json("web", to)["result"] == "ok"


@long
def test_missing_route_and_forwarding_are_named_for_tcp_too(world: World) -> None:
    to = f"{world.far.address}:80"
    with done_and_undone(world, f"ip route del {world.cluster.there.pod_cidr}", "cnictl apply"):
        for source in ("web", "host"):
            name, words, hint = world.cause(source, to)
            assert (name, hint["command"]) == ("no-route", "cnictl apply"), words
    with done_and_undone(world, "sysctl -qw net.ipv4.ip_forward=0", "cnictl apply"):
        document = world.json("web", to, "--trace")
    assert (document["cause_name"], document["cause"]) == ("forwarding-off", "net.ipv4.ip_forward is 0 on this node")
    assert document["trace"][-1]["what"] == "the kernel drops it: net.ipv4.ip_forward is 0"


@long
def test_address_without_a_pod_is_reported_here_and_at_the_peer(world: World) -> None:
    assert world.cause("web", "10.244.0.99")[0] == "no-such-pod"
    name, words, hint = world.cause("web", "10.244.1.99:80")
    assert (name, hint["text"]) == ("no-such-pod", f"on {world.cluster.there.address}: cnictl ping host 10.244.1.99")
    assert re.search(rf"{re.escape(world.cluster.there.address)} answers(?: this node)?: host unreachable", words), (
        words
    )


@applies("probe.why._smaller: --size {}")
@pytest.mark.parametrize("port", ["", ":99/udp"] if SOAK else [""])
def test_mtu_on_the_path_is_reported_with_its_source(world: World, port: str) -> None:
    to = world.far.address + port
    with done_and_undone(world, "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500; cnictl apply"):
        name, words, hint = world.cause("web", to, "--size", "1450")
        assert name == "mtu"
        assert words == "a packet of 1450 bytes is too big: 10.244.0.1 answers that the MTU of its next link is 1400"
        assert matches("probe.why._smaller: --size {}", hint["option"])
        assert world.json("web", to, *hint["option"].split())["result"] == "ok"
        six = world.cause("web", world.far6, "--size", "1450")[1]
        assert "answers that the MTU of its next link is 1400" in six
    assert world.cause("web", to, "--size", "1501")[1].endswith("the link of web has an MTU of 1500")


def test_trace_shows_hooks_routes_neighbours_and_the_connection_in_order(world: World) -> None:
    trace = world.json("web", "external", "--trace")["trace"]
    request = [step["place"] for step in trace if step["packet"] == "request"]
    assert request == [
        "route in the pod", "neighbour in the pod", "bridge", "arrives", "route", "forward", "forward", "postrouting",
        "postrouting", "neighbour", "leaves", "connection",
    ]  # fmt: skip
    reply = [step["place"] for step in trace if step["packet"] == "reply"]
    assert reply[:2] == ["arrives", "route"]
    assert reply[-3:] == ["leaves", "bridge", "answer"]
    by_place = {step["place"]: step["what"] for step in trace if step["packet"] == "request"}
    assert by_place["leaves"] == f"on eth0: {world.here.address} → {world.cluster.external}"
    assert "masquerade fully-random" in by_place["postrouting"]
    assert by_place["connection"].endswith(f"answered, masqueraded as {world.here.address}")


@long
def test_simultaneous_traces_each_see_their_own_packet(world: World) -> None:
    targets = ("external", "db", world.far.address)
    running = [world.here.popen(["cnictl", "ping", *FAST, "web", to, "--trace", "-o", "json"]) for to in targets]
    for process in running:
        said, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
        path = [(step["packet"], step["place"]) for step in checked("ping", said)["trace"]]
        assert {("request", "bridge"), ("reply", "bridge"), ("reply", "answer")} <= set(path), said
    assert "cnictl-probe" not in shell(world.here, "nft list tables")


def test_trace_is_one_list_for_people(world: World) -> None:
    said = world.ping("web", world.far6, "--trace").stdout
    listed = said.partition("one more request, step by step:\n")[2].splitlines()
    assert re.match(r"  request  route in the pod +::/0 dev eth0 via fd00:244::1, table main", listed[0])
    assert re.match(r"  reply    answer +reply by \S+ after [\d.]+ ms", listed[-1])


@long
def test_policy_rule_decides_on_the_route_in_the_trace(world: World) -> None:
    rule = "ip rule add pref 500 iif cni0 lookup 77; ip route add default via 10.0.0.1 dev eth0 table 77"
    with done_and_undone(world, rule, "ip rule del pref 500; ip route flush table 77"):
        trace = world.json("web", "external", "--trace")["trace"]
    routes = [step["what"] for step in trace if step["place"] == "route" and step["packet"] == "request"]
    assert routes == ["0.0.0.0/0 dev eth0 via 10.0.0.1, table 77"]


def test_service_address_is_followed_to_its_endpoint(world: World) -> None:
    chain = "nft add table ip svc; nft add chain ip svc pre '{ type nat hook prerouting priority -100; }'"
    rules = "; ".join(
        f"nft add rule ip svc pre ip daddr 10.96.0.9 tcp dport {port} dnat to {world.far.address}:{to}"
        for port, to in ((443, 80), (444, 99))
    )
    with done_and_undone(world, f"{chain}; {rules}", "nft delete table ip svc"):
        document = world.json("web", "10.96.0.9:443", "--trace")
        assert document["result"] == "ok"
        met = [step["what"] for step in document["trace"]]
        assert f"ip svc pre: ip daddr 10.96.0.9 tcp dport 443 dnat to {world.far.address}:80" in met
        assert any(f"forwarded to {world.far.address}:80" in what for what in met)
        name, words, _ = world.cause("web", "10.96.0.9:444")
        assert name == "refused"
        assert words.startswith(f"Service 10.96.0.9 forwards to {world.far.address}: {world.far.address} answers")
        assert "TCP port 99" in words
        assert world.cause("web", "10.96.0.9")[0] == "service-address"
        assert world.cause("web", "10.96.0.9:445")[:2] == (
            "no-such-port", "Service 10.96.0.9 has no TCP port 445; its ports: 443/tcp, 444/tcp",
        )  # fmt: skip


def test_dns_name_is_resolved_as_the_pod_does(world: World) -> None:
    conf = f"nameserver {world.far.address}\\nsearch example\\n"
    made = f"mkdir -p /etc/netns/web; printf '{conf}' >/etc/netns/web/resolv.conf"
    with done_and_undone(world, made, "rm -r /etc/netns/web"):
        said = world.ping("web", "db.example").stdout
        assert said.startswith(f"db.example is {world.db.address}, from DNS server {world.far.address} in ")
        assert "(/etc/netns/web/resolv.conf)" in said.splitlines()[0]
        # ip netns exec mounts that file as /etc/resolv.conf for this process
        process = world.web.popen(["sleep", "60"])
        try:
            wait_for(
                lambda: "of process" in world.ping("web", "db.example").stdout.splitlines()[0],
                "the process has started",
            )
            document = world.json("web", "db.example.")
        finally:
            process.kill()
            process.communicate()
        assert document["to"] == {
            "name": "db.example.", "kind": "name", "address": world.db.address, "protocol": "icmp", "port": None,
            "dns_server": world.far.address,
        }  # fmt: skip
        done = world.ping("web", "wbe.example")
        assert done.status == 1
        assert f"{world.far.address} answers no such name (/etc/netns/web/resolv.conf)" in done.stderr


def test_wrong_names_get_a_suggestion(world: World) -> None:
    for words in (("wbe", "db"), ("host", "wbe")):
        done = world.ping(*words)
        assert done.status == 1
        assert done.stderr.splitlines()[-1] == "  hint: did you mean web?", done.stderr
    for to, status in (("db:http", 2), ("db:99999", 2), ("[fd00::5", 2), ("10.244.0.300", 2), ("fe80::1", 2)):
        done = world.ping("web", to)
        assert (done.status, done.stdout) == (status, ""), done
    assert world.ping("web", "db:80", "--size", "1400").status == 2
    assert world.ping("web", "db", "-4", "-6").status == 2


@long
def test_peer_is_reached_by_its_name(world: World) -> None:
    here, there = world.here, world.cluster.there
    entries = [(f"node-{name}", node) for name, node in (("a", here), ("b", there))]
    text = 'network = ["10.244.0.0/20", "fd00:244::/48"]\n' + "".join(
        f'[[nodes]]\nname = "{name}"\naddress = ["{node.address}", "{node.address6}"]\n'
        f'pod_cidr = ["{node.pod_cidr}", "{node.pod_cidr6}"]\n'
        for name, node in entries
    )
    here.run(["sh", "-c", "cat >/root/cluster.toml"], stdin=text)
    cnictl(here, "init-node", "--from", "/root/cluster.toml")
    for options, address in (((), there.address), (("-6",), there.address6)):
        document = world.json("web", "node-b", *options)
        assert (document["result"], document["to"]["kind"], document["to"]["address"]) == ("ok", "peer", address)
    assert "hint: did you mean node-b or node-a?" in world.ping("web", "nodeb").stderr


@long
def test_name_of_two_pods_is_refused_with_both(world: World) -> None:
    attached = [_add(world.here, f"same{number}", f"ns{number}", "same") for number in (1, 2)]
    try:
        done = world.ping("host", "same")
        assert done.status == 1
        assert all(f"ns{number}/same at {address}" in done.stderr for number, address in enumerate(attached, 1))
        assert world.json("host", "ns2/same")["to"]["address"] == attached[1]
    finally:
        for number in (1, 2):
            world.sh(f"cnictl ipam release same{number} --force --yes; ip netns delete same{number}")


def _add(node: Node, container: str, namespace: str, name: str) -> str:
    node.run(["ip", "netns", "add", container])
    conf = json.loads(node.run(["cat", "/etc/cni/net.d/10-cnictl.conflist"]).stdout)
    request = {"cniVersion": conf["cniVersion"], "name": conf["name"], **conf["plugins"][0]}
    environment = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": container, "CNI_NETNS": f"/run/netns/{container}",
        "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin",
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}",
    }  # fmt: skip
    said = node.run(["/opt/cni/bin/cnictl-bridge"], stdin=json.dumps(request), env=environment).stdout
    address: str = json.loads(said)["ips"][0]["address"].partition("/")[0]
    return address


def test_ctrl_c_shows_the_summary_and_leaves_no_pod(world: World) -> None:
    line = "echo $$ >/run/ping.pid; exec cnictl ping pod db -c 1000 -i 0.05"
    process = world.here.popen(["sh", "-c", line])
    lines = Lines(process.stdout)
    while "seq=3" not in (line := lines.next() or ""):
        assert line, process.communicate()
    world.sh("kill -INT $(cat /run/ping.pid); rm /run/ping.pid")
    rest, _ = process.communicate(timeout=20)
    assert re.search(r"^\d+ sent, \d+ answered, 0 % lost$", rest, re.MULTILINE), rest
    assert process.returncode == 0
    assert "cnictl-probe" not in shell(world.here, "ip netns list; nft list tables; ls /run/cnictl/probe")


def test_partial_loss_is_a_failure_with_the_share(world: World) -> None:
    make = "nft add table ip deny; nft add chain ip deny c '{ type filter hook output priority 5; }'"
    rule = f"nft add rule ip deny c ip daddr {world.db.address} icmp type echo-request numgen inc mod 2 0 drop"
    with done_and_undone(world, f"{make}; {rule}", "nft delete table ip deny"):
        document = world.json("host", "db", "-c", "4", "-i", "0.02")
    assert (document["result"], document["loss"], document["cause"]) == ("loss", 50, "2 of 4 requests lost")


def _blue(host: Node) -> None:
    """Create a namespace on a host without cnictl."""
    for line in (
        "ip netns add blue; ip link add v0 type veth peer name v1 netns blue; ip link set v0 up",
        "ip address add 10.9.0.1/24 dev v0; ip -n blue address add 10.9.0.2/24 dev v1; ip -n blue link set v1 up",
    ):
        shell(host, line)


@long
def test_host_that_is_not_set_up_pings_from_itself_and_from_namespaces(world: World) -> None:
    outside = world.outside
    _blue(outside)
    try:
        for source, to in (("host", world.here.address), ("host", "10.9.0.2"), ("/run/netns/blue", "10.9.0.1")):
            done = cnictl(outside, "ping", *FAST, source, to, check=False)
            assert done.status == 0, done
        gone = cnictl(outside, "ping", *FAST, "/run/netns/blue", "10.9.0.77", "--trace", check=False)
        assert gone.status == 1
        assert "cause: next hop 10.9.0.77 does not answer on v1 (neighbour table: INCOMPLETE)" in gone.stdout
        unrouted = cnictl(outside, "ping", *FAST, "/run/netns/blue", "10.10.0.1", check=False)
        assert "cause: /run/netns/blue has no route to 10.10.0.1: network is unreachable" in unrouted.stdout
        pod = cnictl(outside, "ping", *FAST, "pod", world.here.address, check=False)
        assert (pod.status, len(pod.stderr.splitlines())) == (1, 2), pod
    finally:
        shell(outside, "ip netns delete blue")


def test_names_are_completed_at_a_tab(world: World) -> None:
    def offered(line: str, word: int) -> list[str]:
        environment = {"_CNICTL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(word)}
        return world.here.run(["sh", "-c", "cnictl"], env=environment).stdout.split()

    assert offered("cnictl\nping\nw", 2) == ["web"]
    there = world.cluster.there
    known = {"host", "pod", "external", "web", "db", there.address, there.address6}
    assert known <= set(offered("cnictl\nping\nweb\n", 3))


def test_lines_appear_at_a_terminal_too(world: World) -> None:
    said = at_terminal(world.here, "", "ping", "host", "db", *FAST)
    assert said.status == 0
    assert "reply from" in said.stdout
