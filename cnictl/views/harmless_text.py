"""Mask what is not known to be harmless in confs, rules, kernel settings and the plugin's log.

Each format has its own list of what may be shown.
"""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from cnictl.node.host import plugin_log
from cnictl.views.harmless import HIDDEN, Words, is_mark, listed

_CONF_NAMES = listed("name type bridge master ifName vlanMode mode backend ipMasqBackend logLevel")
_CONF_VALUES = listed(
    """cniVersion cniVersions disableCheck disableGC capabilities network subnet isGateway isDefaultGateway ipMasq mtu
    hairpinMode logFile forceAddress promiscMode portIsolation macspoofchk enabledad disableContainerInterface
    vlan id minID maxID preserveDefaultVlan rangeStart rangeEnd gateway dataDir resolvConf dst gw advmss
    priority table scope address nameservers domain search options portMappings ips mac bandwidth ipRanges dns
    hostPort containerPort protocol hostIP ingressRate ingressBurst egressRate egressBurst snat conditionsV4
    conditionsV6 markMasqBit externalSetMarkChain masqAll ingressPolicy iptablesAdminChainName firewalldZone
    sysctl linkInContainer vlanId hairpin keepRoute version interface sandbox interfaces routes"""
)  # fmt: skip
_CONF_TABLES = listed(
    """plugins ipam ranges routes dns capabilities runtimeConfig vlanTrunk portMappings bandwidth ipRanges sysctl
    delegate delegates cni prevResult interfaces ips addresses"""
)  # fmt: skip


def conf(value: Any, words: Words, key: str = "", known: bool = True) -> Any:
    """Return a CNI configuration of any plugin, with values of unknown keys masked.

    A key is known if the specification or a reference plugin defines it. Booleans are always shown; a table under an
    unknown key shows only its booleans.
    """
    if isinstance(value, dict):
        inside = known and (not key or key in _CONF_TABLES)
        return {_conf_key(name): conf(inner, words, str(name), inside) for name, inner in value.items()}
    if isinstance(value, list):
        return [conf(inner, words, key, known) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    if not known or not (key in _CONF_NAMES | _CONF_VALUES | _CONF_TABLES or key.startswith("net.")):
        return HIDDEN
    if not isinstance(value, str):
        return value
    if key in _CONF_NAMES:
        return value if re.fullmatch(r"[\w.-]{1,64}", value, re.ASCII) else HIDDEN
    return value if words.is_harmless(value) else HIDDEN


def _conf_key(key: Any) -> str:
    text = str(key)
    return text if text in _CONF_NAMES | _CONF_VALUES or re.fullmatch(r"[A-Za-z][a-zA-Z_./-]{0,40}", text) else HIDDEN


def conf_text(text: str, words: Words) -> str:
    """Return the text of a CNI configuration file, masked."""
    try:
        return json.dumps(conf(json.loads(text), words), indent=1)
    except ValueError as error:
        return f"{HIDDEN} is not valid JSON: {words.prose(str(error))}"


_SETTING = re.compile(r"(?P<key>[A-Za-z][\w./-]{0,80})(?P<between>\s*=\s*)(?P<value>.*)")
_FILE_KEYS = listed(
    """subnet network name bridge uplink mtu nat backend external forward log_level log_file pod_cidr via dev source
    DefaultDependencies Description After Before Wants Type ExecStart RemainAfterExit WantedBy Unmanaged Name
    Match unmanaged-devices ManageForeignRoutes ManageForeignRoutingPolicyRules KeepConfiguration Destination
    Gateway"""
)  # fmt: skip
_SECTIONS = listed("plugin peers Unit Service Install Match Link Network Route keyfile")
_OURS = ("# Desired state of this node.", "# What this node should be.", "# Written by cnictl")
"""The beginnings of comments that cnictl writes; the second is that of older node files."""


def settings(text: str, words: Words) -> str:
    """Return the node file, or another settings file that cnictl writes, with unknown keys, values and comments masked.

    It works line by line, so a file that does not parse is shown too.
    """
    return "\n".join(_setting(line, words) for line in text.split("\n"))


def _setting(line: str, words: Words) -> str:
    bare = line.strip()
    if not bare or bare in "[]":
        return line
    if bare.startswith(_OURS) and words.is_harmless(bare):
        return line
    if bare[0] in "#;":
        return f"# {HIDDEN}"
    section = re.fullmatch(r"\[{1,2}\s*([A-Za-z]+)\s*\]{1,2}", bare)
    if section:
        return line if section[1] in _SECTIONS else f"[{HIDDEN}]"
    if re.fullmatch(r"\"[0-9a-fA-F.:/]+\",?", bare) and words.is_harmless(bare):
        return line  # an address in a list
    match = _SETTING.fullmatch(bare)
    if match is None:
        return HIDDEN
    key = match["key"]
    if key not in _FILE_KEYS and not key.startswith(("net.", "net/")):
        return f"{key}{match['between']}{HIDDEN}" if words.is_harmless(key) else HIDDEN
    value, comment = _without_comment(match["value"])
    if key in ("name", "bridge", "uplink", "dev", "Name"):
        shown = value if re.fullmatch(r"\"?[\w.*@ -]{0,64}\"?", value, re.ASCII) else HIDDEN
    else:
        shown = value if words.is_harmless(value) else HIDDEN
    return f"{key}{match['between']}{shown}" + (f"  # {HIDDEN}" if comment else "")


def _without_comment(value: str) -> tuple[str, bool]:
    """Return a value without its comment, and whether there was one. A `#` in quotes begins no comment."""
    quoted = ""
    for place, letter in enumerate(value):
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "\"'":
            quoted = letter
        elif letter == "#":
            return value[:place].rstrip(), True
    return value, False


def text_of_file(text: str, words: Words) -> str:
    """Return the content of a file that a run wrote (a CNI configuration, or settings), masked."""
    return conf_text(text, words) if text.lstrip().startswith("{") else settings(text, words)


_OF_LINK = re.compile(
    r"(?:[io]if(?:name)?|[io]br(?:name)?|ibrname|obrname|device|sdifname)\s*(?:!=|==)?\s*(?:\{[^}]*)?$"
)


def nft(text: str, words: Words) -> str:
    """Return a ruleset as `nft` lists it, with quoted texts masked, except link names and cnictl's comments."""
    text = re.sub(r"/\*.*?\*/", f"/* {HIDDEN} */", text, flags=re.DOTALL)
    return "\n".join(
        re.sub(r'"((?:\\.|[^"\\])*)("|$)', lambda match: _quoted(match, words), line) for line in text.split("\n")
    )


def _quoted(match: re.Match[str], words: Words) -> str:
    text, before = match[1], match.string[: match.start()]
    of_link = re.fullmatch(r"[\w.@*-]{1,16}", text, re.ASCII) and (_OF_LINK.search(before) or words.is_link(text))
    own = before.endswith("comment ") and (is_mark(text, words) or text == "cnictl:ports")
    return match[0] if of_link or own else f'"{HIDDEN}"'


_RULE_OPTIONS = listed(
    """-A -I -N -P -s -d -i -o -p -j -g -m -f -c --source --destination --in-interface --out-interface --jump --goto
    --match --protocol --dport --sport --dports --sports --ports --ctstate --ctstatus --ctdir --ctproto
    --ctorigsrc --ctorigdst --ctreplsrc --ctorigdstport --state --mark --set-mark --set-xmark --or-mark
    --and-mark --xor-mark --nfmask --ctmask --mask --save-mark --restore-mark --to-destination --to-source
    --to-ports --to --src-type --dst-type --limit --limit-burst --limit-iface-in --limit-iface-out --icmp-type
    --icmpv6-type --tcp-flags --tcp-option --syn --mac-source --match-set --random --random-fully --persistent
    --probability --mode --every --packet --reject-with --set-mss --clamp-mss-to-pmtu --mss --physdev-in
    --physdev-out --physdev-is-bridged --physdev-is-in --physdev-is-out --uid-owner --gid-owner --socket-exists
    --seconds --hitcount --update --rcheck --set --rsource --rdest --checksum-fill --ttl-eq --ttl-gt --ttl-lt
    --ttl-set --hl-eq --hl-gt --hl-lt --pkt-type --length --dscp --tos --dir --pol --strict --reqid --spi
    --proto --loose --validmark --accept-local --invert --src-range --dst-range --notrack --zone --nodst
    --on-port --on-ip --tproxy-mark --log-level --nflog-group --nflog-threshold --queue-num --connlimit-above
    --connlimit-mask --connlimit-upto --hashlimit-upto --hashlimit-above --hashlimit-burst --hashlimit-mode
    --hashlimit-srcmask"""
)  # fmt: skip


def iptables(text: str, words: Words) -> str:
    """Return rules as `iptables-save` lists them, with arguments of unknown options and foreign comments masked."""
    return "\n".join(_saved(line, words) for line in text.split("\n"))


def _saved(line: str, words: Words) -> str:
    if re.fullmatch(r"\s*|COMMIT|\*[a-z]+|:[\w.-]+ [A-Z-]+ \[\d+:\d+\]", line, re.ASCII):
        return line
    if not re.match(r"(?:\[\d+:\d+\] )?-[AINP] ", line):
        return words.prose(line)
    try:
        return " ".join(_options(shlex.split(line), words))
    except ValueError:
        return HIDDEN


def _options(given: list[str], words: Words) -> Iterator[str]:
    option = ""
    hidden = False
    for word in given:
        if re.fullmatch(r"--?[a-z][a-z0-9-]*|-[A-Z]", word) and not (
            option == "--comment" and word not in _RULE_OPTIONS
        ):
            option, hidden = word, False
            yield word if word in _RULE_OPTIONS or words.is_harmless(word) else HIDDEN
        elif word == "!" or re.fullmatch(r"\[\d+:\d+\]", word):  # noqa: SIM114
            yield word
        elif option in _RULE_OPTIONS and re.fullmatch(r"[\w.,:/+@!%-]{1,256}", word, re.ASCII):
            yield word
        elif option == "--comment" and is_mark(word, words):
            yield f'"{word}"'
        elif not hidden:
            hidden = True
            yield HIDDEN


def kernel_settings(text: str, _: Words) -> str:
    """Return what `sysctl` lists, with values that are not numbers masked, because `stable_secret` is a secret."""
    lines = (line for line in text.split("\n") if line)
    return "".join(
        line + "\n"
        if re.fullmatch(r"[\w./@:-]+ = [-\d\s]*", line)
        else f"{line.partition(' = ')[0][:120]} = {HIDDEN}\n"
        for line in lines
        if re.match(r"net[./]", line)
    )


_ZONE_KEYS = listed(
    """target icmp-block-inversion interfaces sources services ports protocols forward masquerade forward-ports
    source-ports icmp-blocks priority ingress-zones egress-zones"""
)  # fmt: skip
_RICH = listed("family address port protocol to-port to-addr value level name type mac ipset invert limit")


def firewalld(text: str, words: Words) -> str:
    """Return zones as `firewall-cmd` lists them, masked."""
    return "\n".join(_zone_line(line, words) for line in text.split("\n"))


def _zone_line(line: str, words: Words) -> str:
    key, colon, value = line.strip().partition(":")
    if line.strip().startswith("rule"):
        plain = re.sub(r'([\w-]+)="([^"]*)"', lambda match: _attribute(match, words), line)
        return plain if words.is_harmless(re.sub(r'[\w-]+="[^"]*"', "", plain)) else HIDDEN
    if colon and key in _ZONE_KEYS:
        return line if key in ("services", "interfaces") else line.partition(":")[0] + ":" + words.prose(value)
    if colon and key == "rich rules":
        return line
    if colon:
        return f"  {words.prose(key)}: {HIDDEN}"
    return line if re.fullmatch(r"[\w-]{0,17}(?: \([a-z, ]+\))?", line, re.ASCII) else words.prose(line)


def _attribute(match: re.Match[str], words: Words) -> str:
    return match[0] if match[1] in _RICH and words.is_harmless(match[2]) else f'{match[1]}="{HIDDEN}"'


def log(text: str, words: Words) -> str:
    """Return the plugin's log: the known fields of each call, without `args` and without lines of another form."""
    return "".join(_log_line(line, words) + "\n" for line in text.splitlines())


def _log_line(line: str, words: Words) -> str:
    call = plugin_log.parse(line)
    if call is None:
        return f"{HIDDEN}: {len(line)} characters, not a log entry"
    level = "error" if call.failed else "info"
    fields = [
        words.prose(call.time), level, words.name(call.verb), f"{call.milliseconds:.1f}ms",
        f"container={_or_dash(words.name(call.container))}", f"ifname={_or_dash(words.name(call.ifname))}",
        f"pod={_or_dash(words.name(call.pod))}", f"address={_or_dash(words.prose(call.address))}",
        f"outcome={words.prose(call.outcome)}",
    ]  # fmt: skip
    return " ".join(fields)


def _or_dash(text: str) -> str:
    return text or "-"
