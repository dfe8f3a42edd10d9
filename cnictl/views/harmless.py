"""Mask the words and values of a support bundle that are not known to be harmless.

A password can appear anywhere an operator can write: in a key that cnictl doesn't know, a rule's comment, an alias, an
argument. No list of secret names is complete, so this module lists what is harmless: addresses, numbers, plain words,
versions, paths made of such words, and names that exist on this host.
"""

import ipaddress
import re
from collections.abc import Callable, Collection
from typing import Any

HIDDEN = "(left out)"


def listed(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


_SECRET_NAMES = (
    r"token|pass(?:word|wd|phrase|code|key)?|pwd|secret|private.?key|client.?key|api.?key|access.?key|signing.?key|"
    r"credentials?|authorization|authentication|psk|bearer|jwt|cookie|session|otp|seed|salt|webhook|dsn|kubeconfig"
)
_SECRET_TEXT = (
    re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL),
    re.compile(r"(?<=://)[^\s@\"']+(?=@)"),
    re.compile(r"(?i)(\b(?:authorization|proxy-authorization|cookie|set-cookie)\s*[:=]\s*)[^\n]+"),
    re.compile(
        rf"(?i)((?<![a-z])(?:[\w.-]*[_.-])?(?:{_SECRET_NAMES})s?(?:[_.-][\w.-]*)?(?:\\?[\"'])?\s*[:=]\s*\\?[\"']?)"
        r"(?!\(left out)(?:(?<=\")(?:\\.|[^\"\\\n])*|(?<=')[^'\n]*|(?:bearer |basic )?[^\s\"',}]+)"
    ),
    # options of a command
    re.compile(rf"(?i)((?<![\w-])--?(?:[\w-]*-)?(?:{_SECRET_NAMES})\s+)(?!-)(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"',}}]+)"),
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)(?=\S*[\d=._-])[^\s\"',}]+"),
    re.compile(r"( args=)\{.*\}(?= outcome=|$)", re.MULTILINE),
)  # fmt: skip

_SECRET_WORD = re.compile(rf"(?:{_SECRET_NAMES})s?", re.IGNORECASE)
_LINKING = listed("is are was of in for to and or not by from with")
_PLAIN = re.compile(r"(?:[a-z]+|[A-Z]?[a-z]+|[A-Z]+)(?:(?:[_-]|\.(?=[a-z]))(?:[a-z]+|[A-Z]?[a-z]+|[A-Z]+|\d{1,3}))*")
_LONGEST_WORD = 24
_CAMEL = re.compile(r"[A-Z]?[a-z]{2,}(?:[A-Z][a-z]{2,}){1,3}")
_NUMBER = re.compile(r"[#@+-]?\d{1,12}(?:\.\d{1,9})?(?:%|[a-zA-Z]{1,3})?|0x[0-9a-fA-F]{1,8}(?:/0x[0-9a-fA-F]{1,8})?")
_SETTING = re.compile(
    r"net[./](?:ipv[46]|bridge|netfilter|core)(?:[./][a-z_]+)*(?:[./][a-z]{1,12}\d{0,4})?(?:[./][a-z_]+)*"
)
_VERSION = re.compile(
    r"(?:[a-z]{2,20}\d?-|python|v)?\d{1,9}(?:\.\d{1,9})+(?:[.~+-][a-z]{0,8}\d{0,6}(?:[a-z]{1,3}\d{1,3})?){0,6}"
)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)?)?|\d\d:\d\d(?::\d\d)?")
_LINK = re.compile(
    r"(?:eth|eno|ens|enp|bond|br|cni|docker|podman|wlan|vxlan|tun|tap|wg|team|virbr)\d{1,4}(?:[.:]\d{1,4})?(?:[sfd]\d{1,3}){0,3}"
    r"|veth[0-9a-f]{0,11}|br-[0-9a-f]{12}|flannel\.\d+|lo"
)  # fmt: skip
_KNOWN = listed(
    """ipv4 ipv6 ip6 ip6tables inet6 x86_64 aarch64 arm64 amd64 nf_tables ip_tables conntrack rp_filter accept_ra
    ip_forward icmp6 icmpv6 99-cnictl.conf 10-cnictl.conflist 00-cnictl.network cnictl-bridge sha256 utf-8 UTF-8
    utf8 CRI-O crio.conf noqueue pfifo_fast fq_codel eui64 ether NetworkManager DOCKER-USER cniVersion
    isDefaultGateway ipMasq rangeStart rangeEnd dataDir IPv4 IPv6 MTU MAC NetworkPolicy kube-proxy iproute2
    libbpf OpenVPN containerd.io 8021q 802.1Q 802.1ad link/ether MacAddress prevResult WireGuard CNIv1 RFC
    __init__.py 10-cnictl.conflist.tmp"""
)  # fmt: skip
_OPTIONS = listed(
    """-n -j -d -s -o -i -w -t -A -D -I -N -F -X -P -m -g -f -c -q -W -6 -4 -r -a -e -k -h -y --subnet --network --name
    --bridge --uplink --mtu --nat --no-nat --backend --peer --pod --from --to --external --dev --count --timeout
    --for --dry-run --yes --output --only --skip --fix --explain --force --version --bin-dir --conf --serve
    --confirm-within --no-forward --forward --verb --failed --lines --follow --release --to-source
    --to-destination --to-ports --dport --sport --dports --sports --ctstate --mark --comment --match-set
    --reload --permanent --zone --interface --wait --invalidation-mode --all --list --no-pager --net --pattern
    --state --log-level --log-file --textfile --watch --keep --former --boot --now --runtime --config --noflush
    --addr-type --dst-type --src-type --limit --number --protocol --cache --plugin --namespace"""
)  # fmt: skip
_PROTOCOLS = frozenset(["tcp", "udp", "icmp", "icmpv6", "ipv6-icmp", "sctp", "all", "udplite", "esp", "ah"])
_ASSIGNED = listed(
    """container ifname pod address netns outcome src dst iif oif state via dev name type subnet network table proto
    mtu id link alias value key kind mode family verb code status pid uid gid sysctl accept_ra accept_dad
    forwarding"""
)  # fmt: skip
_EDGES = "\"'`,;:.()[]{}<>!?*|&…→#$+"


class Words:
    """Mask words that are not known to be harmless. `names` and `links` are the names that exist on this host."""

    def __init__(self, names: Collection[str] = (), links: Collection[str] = ()) -> None:
        self._links = set(links)
        self._names = {name for name in (*names, *links) if name}

    def prose(self, text: str) -> str:
        """Return a text that a program wrote (a message, a command, an error) with unknown words masked."""
        text = without_secrets(_without_documents(text))
        return "\n".join(self._line(line) for line in text.split("\n"))

    def is_harmless(self, text: str) -> bool:
        """Return whether a value may be shown whole."""
        return self.prose(text) == text

    def is_link(self, text: str) -> bool:
        """Return whether a link on this host has that name."""
        return text in self._links

    def is_address(self, text: str) -> bool:
        """Return whether a text is a MAC, or an address with or without a prefix length, port or zone."""
        return _is_address(text)

    def name(self, text: str) -> str:
        """Return the name of a link, network, plugin, pod or container; mask it if it has unexpected characters."""
        return text if re.fullmatch(r"[\w@:./+-]{0,253}", text, re.ASCII) else self.prose(text)

    def _line(self, line: str) -> str:
        kept: list[str] = []
        before = ""
        for part in re.split(r"(\s+)", line):
            if not part or part.isspace():
                kept.append(part)
                continue
            kept.append(self._word(part, before))
            before = part
        return "".join(kept).replace(f"{HIDDEN} {HIDDEN}", HIDDEN)

    def _word(self, word: str, before: str) -> str:
        if HIDDEN.partition(" ")[0] in word or word.endswith(HIDDEN.rpartition(" ")[2]):
            return word  # masked already
        if _SECRET_WORD.fullmatch(before.strip(_EDGES)) and word.strip(_EDGES) not in _LINKING:
            return HIDDEN
        if before == "-p":
            return word if word.strip(_EDGES) in _PROTOCOLS or word.isdigit() else HIDDEN
        if before.startswith("-") and before.lstrip("-")[:1].isalpha() and not word.startswith("-"):
            option = before.partition("=")[0]
            if option not in _OPTIONS and not _is_address(word):
                return HIDDEN
        core = word.strip(_EDGES)
        if core in ("", "-") or self._is_known(core):
            return word
        shown = self._parted(core)
        return word.replace(core, shown, 1)

    def _parted(self, core: str) -> str:
        """Return a compound word, such as `KEY=VALUE`, a path or a list, with its unknown parts masked."""
        key, equals, value = core.partition("=")
        if equals:
            near = key.lstrip("-")
            if _is_address(key) and _is_address(value):
                return core
            safe = near in _ASSIGNED or f"--{near}" in _OPTIONS or re.fullmatch(r"net[./][\w./-]+", near)
            if safe and (self._is_known(value) or self._is_path(value)):
                return core
            shown_key = key if self._is_known(key.lstrip("-")) or self._is_path(key) else HIDDEN
            return f"{shown_key}={HIDDEN}" if shown_key != HIDDEN else HIDDEN
        return core if self._is_path(core) else HIDDEN

    def _is_path(self, text: str) -> bool:
        parts = re.split(r"[/,:@|]+", text)
        return len(text) <= 512 and all(not part or self._is_known(part.strip(_EDGES)) for part in parts)

    def _is_known(self, text: str) -> bool:
        if not text or text in self._names or text in _KNOWN or text in _OPTIONS or _is_address(text):
            return True
        plain = text.lstrip("-") if text.startswith("--") else text
        if _PLAIN.fullmatch(plain):
            return all(len(part) <= _LONGEST_WORD for part in re.split(r"[-_.]", plain))
        if "'" in text and all(_PLAIN.fullmatch(part) for part in text.split("'")):
            return True
        return any(form.fullmatch(text) for form in (_NUMBER, _VERSION, _TIME, _LINK, _CAMEL, _SETTING))


def _is_address(text: str) -> bool:
    if re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", text, re.IGNORECASE):
        return True
    bare = re.sub(r"(?<=\d):\d{1,5}$", "", text) if text.count(":") == 1 else text
    bare = re.sub(r"%\w+", "", bare)
    try:
        ipaddress.ip_interface(bare.strip("[]"))
    except ValueError:
        return False
    return "." in bare or ":" in bare


def without_secrets(text: str) -> str:
    """Return a text with the values of secret names, credentials in URLs, and PEM blocks masked.

    This is the second line of defence, for words that are harmless elsewhere: `password swordfish`.
    """
    for pattern in _SECRET_TEXT:
        text = pattern.sub(lambda match: (match[1] if match.re.groups else "") + HIDDEN, text)
    return text


def _without_documents(text: str) -> str:
    """Return a manual command with its here-documents masked; their text is also shown as a separate value."""
    return re.sub(r"(<<-?\s*'?(\w+)'?[^\n]*\n).*?(?:\n\2(?=\n|$)|\Z)", rf"\1{HIDDEN}", text, flags=re.DOTALL)


_KERNEL_KEYS = listed(
    """ifname link master operstate linkmode group link_type address broadcast permaddr qdisc info_kind info_slave_kind
    inet6_addr_gen_mode parentbus parentdev local peer label scope dst gateway dev protocol prefsrc pref table
    type state lladdr mac src via family host flags iif oif action to from nexthop altnames id root_id bridge_id
    mode vlan_protocol remote port_range designated_root role offload phys_port_name phys_switch_id srcmask
    dstmask fwmask l3mdev iifname oifname ipproto dport sport router proxy lladdr cookie_hint"""
)  # fmt: skip
_NAMED_BY_KERNEL = listed("ifname link master label dev iif oif altnames parentdev phys_port_name")


def of_kernel(value: Any, words: Words, key: str = "") -> Any:
    """Return what `ip -j` or `bridge -j` printed: numbers, texts of known keys, and cnictl's aliases."""
    if isinstance(value, dict):
        return {name: of_kernel(inner, words, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [of_kernel(inner, words, key) for inner in value]
    if not isinstance(value, str):
        return value
    if key in ("ifalias", "alias"):
        return value if is_mark(value, words) else HIDDEN
    if key in _NAMED_BY_KERNEL:
        return words.name(value)
    return value if (key in _KERNEL_KEYS or words.is_address(value)) and words.is_harmless(value) else HIDDEN


def is_mark(text: str, words: Words) -> bool:
    """Return whether an alias or a rule's comment is one of cnictl's ownership marks, such as `cnictl:NETWORK`."""
    match = re.fullmatch(r"cnictl:([\w.-]{1,63})(?:/([\w./-]{1,253}))?(?: [0-9a-f]{8,16})?", text, re.ASCII)
    return match is not None and all(words.is_harmless(part) for part in match.groups() if part)


_NAME_KEYS = listed("name type bridge master ifname interface container pod dev uplink at behind where")


def of_cnictl(value: Any, words: Words, texts: Callable[[str], str], key: str = "") -> Any:
    """Return values that cnictl made, with their texts masked word by word. `texts` masks the content of a file."""
    if isinstance(value, dict):
        if key == "files":
            return {words.prose(path): texts(text) if isinstance(text, str) else HIDDEN for path, text in value.items()}
        return {words.prose(str(name)): of_cnictl(inner, words, texts, str(name)) for name, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [of_cnictl(inner, words, texts, key) for inner in value]
    if not isinstance(value, str):
        return value
    if key == "text":
        return texts(value)
    if key in ("digest", "boot_id"):
        return value if re.fullmatch(r"[0-9a-f-]{0,64}", value) else HIDDEN
    if key == "owner":
        return value if value in ("", "cnictl") or is_mark(value, words) else words.prose(value)
    if key in _NAME_KEYS:
        return words.name(value)
    return words.prose(value)
