"""Rules of a table as `iptables -S` lists them, also where a native rule of nft's stands in one of its chains.

iptables-nft refuses to list a whole table for one rule that it can't express, though it can read the other chains.
Of a rule that asks a set or a map it lists the rest alone: `ip saddr @blocked drop` shows as `-j DROP` (1.8.9).
"""

from cnictl.core.errors import Problem
from cnictl.core.netlink import nftables
from cnictl.core.process import run

FAMILIES = {"iptables": 2, "ip6tables": 10}
"""NFPROTO_IPV4 and NFPROTO_IPV6, linux/netfilter.h, by the program of the family."""
_BUILT_IN = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
_INCOMPATIBLE = "is incompatible"
"""Part of iptables-nft's word for a table or chain that holds what it can't express."""


def listing(program: str, table: str) -> "tuple[list[str], list[str]]":
    """Return the lines of `PROGRAM -t TABLE -S`, and the names of the chains that the program can't read as they are.

    Raises Problem if the program is missing, or can't read the table for another reason.
    """
    asked = [program, "-w", "-t", table, "-S"]
    whole = run(asked, check=False)
    unread = misread(program, table)
    if whole.status == 0:
        lines = whole.stdout.splitlines()
        return [line for line in lines if not unread or line.split()[1] not in unread], sorted(unread)
    if _INCOMPATIBLE not in whole.stderr:
        said = (whole.stderr.strip() or f"exit status {whole.status}").splitlines()[0]
        raise Problem(f"{' '.join(asked)}: {said}")
    there = nftables.chains(_family(program), table)
    # the program makes its own chains as it needs them, and lists those that are missing with their first policy
    lines = [f"-P {chain} ACCEPT" for chain in _BUILT_IN.get(table, ()) if chain not in there]
    for chain in there:
        one = run([*asked, chain], check=False)
        if one.status == 0 and chain not in unread:
            lines += one.stdout.splitlines()
        else:
            unread.add(chain)
    # as in a whole listing: every chain is named before the rules that may lead to it
    heads = [line for line in lines if not line.startswith("-A ")]
    return heads + [line for line in lines if line.startswith("-A ")], sorted(unread)


def misread(program: str, table: str) -> "set[str]":
    """Return the chains of which the program lists something else than what is there. Raises Problem."""
    found = nftables.chains_with(_family(program), table, "lookup")
    # the old kernel interface has tables of its own, whatever nftables' have in them
    return found if found and "nf_tables" in run([program, "--version"], check=False).stdout else set()


def _family(program: str) -> int:
    return FAMILIES[program.partition("-")[0]]
