"""List the rules of a table as `iptables -S` does, even if one of its chains contains a native nft rule.

iptables-nft refuses to list a whole table because of one rule that it can't express, although it can read the other
chains. It leaves out the part of a rule that looks up a set or map: it lists `ip saddr @blocked drop` as `-j DROP`
(1.8.9).
"""

from cnictl.core.errors import Problem
from cnictl.core.netlink import nftables
from cnictl.core.process import run

FAMILIES = {"iptables": 2, "ip6tables": 10}
"""NFPROTO_IPV4 and NFPROTO_IPV6 (linux/netfilter.h), by the iptables program."""
_BUILT_IN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
_INCOMPATIBLE = "is incompatible"
"""Part of iptables-nft's message about a table or chain with a rule that it can't express."""


def listing(program: str, table: str) -> "tuple[list[str], list[str]]":
    """Return the lines of `PROGRAM -t TABLE -S`, and the names of the chains that the program can't read correctly.

    Raises Problem if the program is missing, or can't read the table for another reason.
    """
    command = [program, "-w", "-t", table, "-S"]
    whole = run(command, check=False)
    unread = misread(program, table)
    if whole.status == 0:
        lines = whole.stdout.splitlines()
        return [line for line in lines if not unread or line.split()[1] not in unread], sorted(unread)
    if _INCOMPATIBLE not in whole.stderr:
        reason = (whole.stderr.strip() or f"exit status {whole.status}").splitlines()[0]
        raise Problem(f"{' '.join(command)}: {reason}")
    present = nftables.chains(_family(program), table)
    # iptables makes built-in chains when it needs them, and lists a missing one with its initial policy
    lines = [f"-P {chain} ACCEPT" for chain in _BUILT_IN.get(table, ()) if chain not in present]
    for chain in present:
        chain_listing = run([*command, chain], check=False)
        if chain_listing.status == 0 and chain not in unread:
            lines += chain_listing.stdout.splitlines()
        else:
            unread.add(chain)
    # name every chain before the rules that may jump to it, as in a complete listing
    heads = [line for line in lines if not line.startswith("-A ")]
    return heads + [line for line in lines if line.startswith("-A ")], sorted(unread)


def misread(program: str, table: str) -> "set[str]":
    """Return the chains that the program lists incorrectly. Raises Problem."""
    names = nftables.chains_with(_family(program), table, "lookup")
    # the legacy backend has separate tables, so the content of nftables' tables doesn't matter to it
    return names if names and "nf_tables" in run([program, "--version"], check=False).stdout else set()


def _family(program: str) -> int:
    return FAMILIES[program.partition("-")[0]]
