"""A support bundle shows only text that is known to be harmless."""

import json

import pytest

from cnictl.views import harmless_text
from cnictl.views.harmless import HIDDEN, Words, of_cnictl, of_kernel

WORDS = Words(["web1", "node1", "mynet", "default/web1"], links=["corp0", "vethc0ffee01"])

SECRETS = (
    "hunter2", "Sw0rdf1sh!", "s3cr3t-Pa55", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "dGhpc0lzQVNlY3JldEtleQ==", "5f4dcc3b5aa765d61d8327deb882cf99",
    "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", "xoxb-2488392-Kd83jdM", "abcdef.0123456789abcdef",
)  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "form",
    [
        "{}", "token {}", "run --token {} now", "curl -p {} x", "mysql -p{}", "TOKEN={}", "--opt={}", "a: {}",
        "x \"{}\" y",
        "https://me:{}@host/x", "https://host/hook/{}", "Authorization: Bearer {}", "Cookie: session={}; x", "key '{}'",
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----", "PrivateKey = {}", "cat > /x <<'EOF'\n{}\nEOF",
        "ExecStart=/usr/bin/agent --join {}", "plugin calico, ADD: Get \"https://10.96.0.1\": {} refused",
        "{}/path", "/etc/{}/x",
    ],
)  # fmt: skip
def test_text_that_looks_like_a_secret_is_never_shown(form: str, secret: str) -> None:
    assert secret not in WORDS.prose(form.replace("{}", secret))
    assert secret not in harmless_text.settings(form.replace("{}", secret), WORDS)
    assert secret not in harmless_text.conf_text(json.dumps({form.replace("{}", "x"): secret}), WORDS)
    assert secret not in harmless_text.log(form.replace("{}", secret), WORDS)


@pytest.mark.parametrize(
    "text",
    [
        "password swordfish", "passphrase: swordfish", "--passphrase swordfish", "PASSPHRASE=swordfish",
        "jwt=swordfish",
        "cookie: swordfish", "Set-Cookie: a=swordfish", "bearer: swordfish", "--join swordfish", "-p swordfish",
        "AGENT=swordfish",
        "https://swordfish@host", "psk: swordfish", "--key swordfish", "Authorization: swordfish x",
    ],
)  # fmt: skip
def test_plain_word_in_place_of_a_secret_is_masked(text: str) -> None:
    assert "swordfish" not in WORDS.prose(text)


@pytest.mark.parametrize(
    "text",
    [
        "the route to a peer's pods is missing or wrong: route 10.244.1.0/24 through 10.0.10.51 on eth0",
        "ip route add 10.244.1.0/24 via 10.0.10.51 dev eth0 proto 67",
        "sysctl -w net.ipv4.ip_forward=1",
        "iptables -w -A CNICTL-FORWARD -s 10.244.0.0/24 -i cni0 -j ACCEPT",
        "address 10.244.0.5/24 has host bits set; did you mean 10.244.0.0/24?",
        "fd00:244::2/64 is held by web1 (veth0066d33c)",
        "nft: nftables v1.0.6 (Lester Gooch #5)",
        "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
        "Linux node1 6.18.44-fc-v782 #1 SMP PREEMPT_DYNAMIC x86_64 GNU/Linux",
        "RTNETLINK answers: No such device",
        "plugin portmap, ADD: can't set up 127.0.0.1:8080 (CNI code 999)",
        "write /etc/cni/net.d/10-cnictl.conflist",
        "init-node --subnet 10.244.0.0/24 --network 10.244.0.0/20 --peer 10.244.1.0/24=10.0.10.51",
        "/var/lib/cni/networks/mynet/10.244.0.77: torn",
        "2026-11-29T09:50:01+0000", "02:c6:94:39:67:0b is the MAC, MTU 1450", "corp0 is down",
        "pod default/web1 waits for its address", "nft list chain inet cnictl masquerade-mynet",
    ],
)  # fmt: skip
def test_diagnostic_values_are_shown(text: str) -> None:
    assert WORDS.prose(text) == text


def test_conf_shows_only_known_keys_and_switches() -> None:
    document = {
        "cniVersion": "1.0.0", "name": "mynet", "password": "swordfish", "pin": 1234, "debug": True,
        "kubernetes": {"kubeconfig": "/etc/x", "api_root": "swordfish", "mtu": 7},
        "delegates": [{"type": "ovn", "mtu": 1400, "auth": {"type": "swordfish"}, "server": "swordfish"}],
        "plugins": [
            {
                "type": "cnictl-bridge", "bridge": "cni0", "subnet": "10.244.0.0/24", "ipMasq": True, "mtu": "hunter2",
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}]},
                "args": {"cni": {"ips": ["swordfish"]}}, "env": ["A=swordfish"], "dns": {"nameservers": ["10.96.0.10"]},
            }
        ],
    }  # fmt: skip
    assert harmless_text.conf(document, WORDS) == {
        "cniVersion": "1.0.0", "name": "mynet", "password": HIDDEN, "pin": HIDDEN, "debug": True,
        "kubernetes": {"kubeconfig": HIDDEN, "api_root": HIDDEN, "mtu": HIDDEN},
        "delegates": [{"type": "ovn", "mtu": 1400, "auth": {"type": HIDDEN}, "server": HIDDEN}],
        "plugins": [
            {
                "type": "cnictl-bridge", "bridge": "cni0", "subnet": "10.244.0.0/24", "ipMasq": True, "mtu": HIDDEN,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}]},
                "args": {"cni": {"ips": [HIDDEN]}}, "env": [HIDDEN], "dns": {"nameservers": ["10.96.0.10"]},
            }
        ],
    }  # fmt: skip


def test_node_file_shows_known_keys_without_comments() -> None:
    text = (
        "# What this node should be. `cnictl apply` makes it so; `cnictl status` says where the host differs.\n"
        "# ask bob for swordfish\n"
        'subnet = "10.244.0.0/24"  # swordfish\nname = "mynet"\nexternals_key = "swordfish"\n'
        'mtu = "Sw0rdf1sh"\nswordfish\n'
        '[[peers]]\npod_cidr = "10.244.1.0/24"\nvia = "10.0.10.51"\n[swordfish9]\n'
        'network = [\n"10.244.0.0/20",\n"fd00::/48"\n]\n'
        'notes = """\nswordfish\n"""\n'
    )
    assert harmless_text.settings(text, WORDS).splitlines() == [
        text.splitlines()[0], f"# {HIDDEN}", f'subnet = "10.244.0.0/24"  # {HIDDEN}', 'name = "mynet"',
        f"externals_key = {HIDDEN}", f"mtu = {HIDDEN}", HIDDEN, "[[peers]]", 'pod_cidr = "10.244.1.0/24"',
        'via = "10.0.10.51"', HIDDEN, "network = [", '"10.244.0.0/20",', '"fd00::/48"', "]", f"notes = {HIDDEN}",
        HIDDEN, HIDDEN,
    ]  # fmt: skip


NFT = """\
table inet corp { # handle 7
	comment "swordfish"
	set ports {
		type ifname
		elements = { "eth0", "corp0", "swordfish" comment "swordfish" }
	}
	chain in { # handle 1
		type filter hook input priority filter; policy drop;
		iifname { "eth0", "lo" } tcp dport { 22, 443 } log prefix "swordfish: " accept comment "swordfish"
		iifname != "cni0" ip saddr 10.244.0.0/24 drop comment "cnictl:mynet 005f834d" # handle 5
		meta secmark "swordfish" xt match "swordfish" /* swordfish */
		oifname "cni0" comment "cnictl:token swordfish"
	}
}
"""


def test_nft_rules_are_shown_without_comments_and_prefixes() -> None:
    shown = harmless_text.nft(NFT, WORDS)
    assert "swordfish" not in shown
    for words in (
        'elements = { "(left out)", "corp0", "(left out)" comment "(left out)" }',
        'iifname { "eth0", "lo" } tcp dport { 22, 443 } log prefix "(left out)" accept',
        'iifname != "cni0" ip saddr 10.244.0.0/24 drop comment "cnictl:mynet 005f834d" # handle 5',
    ):
        assert words in shown


IPTABLES = """\
# Generated by iptables-save v1.8.9 (nf_tables) on Sun Nov 29 09:50:05 2026
*filter
:FORWARD DROP [0:0]
:KUBE-SVC-AB12 - [0:0]
[1:84] -A FORWARD -s 10.0.0.0/8 ! -d 10.244.0.0/24 -i eth0 -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -m comment --comment swordfish -j ACCEPT
-A FORWARD -m comment --comment "sword fish" -m string --string "swordfish" --algo bm -j LOG --log-prefix "swordfish"
-A FORWARD -m comment --comment "-j swordfish" -j KUBE-SVC-AB12
-A FORWARD -m comment --comment --swordfish -j DROP
-A CNICTL-FORWARD -d 10.244.0.0/24 -o cni0 -m comment --comment "cnictl:mynet" -j ACCEPT
COMMIT
"""


def test_iptables_rules_are_shown_without_comments_and_strings() -> None:
    lines = harmless_text.iptables(IPTABLES, WORDS).splitlines()
    assert not [line for line in lines if "sword" in line]
    assert lines[1:5] == IPTABLES.splitlines()[1:5]
    assert lines[-2:] == IPTABLES.splitlines()[-2:]
    assert lines[7] == f"-A FORWARD -m comment --comment {HIDDEN} -j KUBE-SVC-AB12"


def test_kernel_settings_are_numbers() -> None:
    text = "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.stable_secret = fd00::1:2\nkernel.x = 1\nswordfish\n"
    shown = harmless_text.kernel_settings(text, WORDS)
    assert shown == f"net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.stable_secret = {HIDDEN}\n"


def test_kernels_answers_are_shown_without_aliases() -> None:
    link = {
        "ifindex": 4, "ifname": "corp0", "ifalias": "swordfish", "address": "02:c6:94:39:67:0b", "flags": ["UP"],
        "operstate": "UP",
        "linkinfo": {"info_kind": "bridge", "info_data": {"root_id": "8000.2:c6:94:39:67:b", "key": "swordfish"}},
        "new": "swordfish",
    }  # fmt: skip
    shown = of_kernel([link, {"ifalias": "cnictl:mynet/default/web1"}], WORDS)
    assert "swordfish" not in json.dumps(shown)
    assert shown[1]["ifalias"] == "cnictl:mynet/default/web1"
    assert (shown[0]["ifname"], shown[0]["address"], shown[0]["flags"]) == ("corp0", "02:c6:94:39:67:0b", ["UP"])


def test_firewalld_zones_are_shown_without_prefixes() -> None:
    text = (
        "public (active)\n  target: default\n  interfaces: eth0\n  sources: 10.0.0.0/8\n  services: dhcpv6-client ssh\n"
        "  description: swordfish\n  rich rules: \n"
        '\trule family="ipv4" source address="10.0.0.0/8" log prefix="swordfish" level="info" accept\n'
    )
    shown = harmless_text.firewalld(text, WORDS)
    assert shown.replace(f'prefix="{HIDDEN}"', 'prefix="swordfish"').splitlines()[6:] == text.splitlines()[6:]
    assert shown.splitlines()[:5] == text.splitlines()[:5]
    assert HIDDEN in shown and shown.count("swordfish") == 0


def test_log_shows_fields_and_no_arguments() -> None:
    line = (
        "2026-11-29T09:49:59Z error ADD 16.4ms container=web1 ifname=eth0 pod=default/web1 address=10.244.0.2 netns=/x "
        "args={'TOKEN': 'swordfish'} outcome=code 7: token swordfish is no address"
    )
    shown = harmless_text.log(line + "\nswordfish\n", WORDS)
    assert "swordfish" not in shown
    assert "container=web1 ifname=eth0 pod=default/web1 address=10.244.0.2 outcome=code 7:" in shown


def test_values_that_a_run_recorded_are_masked_like_the_files_they_came_from() -> None:
    recorded = {
        "resource": "file/etc/cnictl/node.toml", "after": {"text": 'name = "mynet"\nkey = "swordfish"\n'},
        "before": {"files": {"/etc/cni/net.d/10-cnictl.conflist": '{"name": "mynet", "api": "swordfish"}'}},
        "argv": ["init-node", "--token", "hunter2"], "command": "cat > /x <<'EOF'\nswordfish\nEOF", "number": 3,
    }  # fmt: skip
    shown = of_cnictl(recorded, WORDS, lambda text: harmless_text.text_of_file(text, WORDS))
    assert "swordfish" not in json.dumps(shown) and "hunter2" not in json.dumps(shown)
    assert shown["after"]["text"].startswith('name = "mynet"') and shown["number"] == 3
