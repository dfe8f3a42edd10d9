"""List and delete nf_tables objects over netlink: `nft` need not be installed, and the kernel decides what is empty.

Rules are not created here, because `nft` compiles them. Source: linux/netfilter/nf_tables.h, net/netfilter/nfnetlink.c.
"""

import errno
from sys import byteorder

try:
    from _struct import Struct
except ImportError:
    from struct import Struct

from cnictl.core.errors import FIREWALL_FAILED, CniError
from cnictl.core.netlink.messages import (
    NESTED,
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Netlink,
    NetlinkError,
    attr,
    attributes,
    repeated,
    text_attr,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FAMILY_INET, FAMILY_BRIDGE = 1, 7
"""NFPROTO_*, linux/netfilter.h."""

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_GETTABLE, _DELTABLE, _GETCHAIN, _DELCHAIN, _GETRULE, _DELRULE = 1, 2, 4, 5, 7, 8  # NFT_MSG_*
_DELSET, _GETSETELEM, _DELSETELEM = 11, 13, 14
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_ONLY_IF_EMPTY = 0x100  # NLM_F_NONREC

_TABLE = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE
_CHAIN_NAME, _RULE_CHAIN, _RULE_HANDLE, _RULE_USERDATA = 3, 2, 3, 7
_SET_NAME, _SET_ELEMENTS, _ELEMENT, _ELEMENT_KEY, _DATA_VALUE, _ELEMENT_USERDATA = 2, 3, 1, 1, 1, 6

_TRIES = 5
"""Attempts, as another process may remove something after it was listed."""

_USUAL = 1 << 16
"""Bytes of a transaction that fit into every socket's buffer; the kernel refuses to queue a larger one."""

_HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port

_Message = tuple[int, int, bytes]
"""Kind, flags, body without nfgenmsg."""


class _NfTables(Netlink):
    """A netlink socket for transactions: the kernel executes all messages of a batch, or none."""

    def __init__(self, family: int) -> None:
        super().__init__(NETLINK_NETFILTER)
        self._family = family

    def __enter__(self) -> "_NfTables":
        return self

    def listed(self, kind: int, body: bytes) -> list[bytes]:
        return self.dump(_SUBSYSTEM << 8 | kind, bytes((self._family, 0, 0, 0)) + body)

    def transact(self, messages: "Sequence[_Message]") -> None:
        """Execute a batch. Raises NetlinkError for the first refused message; then nothing is changed.

        A transaction is one datagram, however long. Only its last message asks for an answer, because thousands of
        answers would not fit into the socket's buffer. Errors are always reported, before that answer.
        """
        edge = bytes((0, 0, 0, _SUBSYSTEM))  # nfgenmsg: the subsystem is its resource id
        first, last = self._sequence + 1, len(messages)
        batch = [self._packed(_BATCH_BEGIN, 0, edge)]
        for number, (kind, flags, body) in enumerate(messages, 1):
            whole = bytes((self._family, 0, 0, 0)) + body
            batch.append(self._packed(_SUBSYSTEM << 8 | kind, flags | (NLM_F_ACK if number == last else 0), whole))
        batch.append(self._packed(_BATCH_END, 0, edge))
        data = b"".join(batch)
        if len(data) > _USUAL:
            self._make_room(2 * len(data), sending=True)
        self._socket.send(data)
        while True:
            try:
                answers = self._receive()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # only later refusals are lost: the first one is in the buffer
            for kind, sequence, _, payload in answers:
                if kind == NLMSG_ERROR and sequence >= first:
                    number = -int.from_bytes(payload[:4], byteorder, signed=True)
                    if number:
                        raise NetlinkError(number, "", sequence - first - 1)
                    if sequence == first + last:
                        return

    def _packed(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0) + body


def tables(family: int) -> list[str]:
    """Return the names of a family's tables; none without nf_tables."""
    try:
        with _NfTables(family) as netlink:
            return [
                _text(attributes(table, 4)[_TABLE]) for table in netlink.listed(_GETTABLE, b"") if table[0] == family
            ]
    except NetlinkError:
        return []


def chains(family: int, table: str) -> list[str]:
    """Return the names of a table's chains; none without the table or nf_tables."""
    try:
        with _NfTables(family) as netlink:
            listed = [attributes(chain, 4) for chain in netlink.listed(_GETCHAIN, text_attr(_TABLE, table))]
    except NetlinkError:
        return []
    # older kernels list the chains of all tables in any case
    return [_text(chain[_CHAIN_NAME]) for chain in listed if _text(chain.get(_TABLE, b"")) == table]


def rules(family: int, table: str, chain: str) -> list[tuple[bytes, bytes]]:
    """Return handle and user data (which contain nft's comment) of each rule of a chain; none without the chain."""
    try:
        with _NfTables(family) as netlink:
            body = text_attr(_TABLE, table) + text_attr(_RULE_CHAIN, chain)
            listed = [attributes(rule, 4) for rule in netlink.listed(_GETRULE, body)]
    except NetlinkError:
        return []
    return [(rule[_RULE_HANDLE], rule.get(_RULE_USERDATA, b"")) for rule in listed if _text(rule[_RULE_CHAIN]) == chain]


def chains_with(family: int, table: str, expression: str) -> set[str]:
    """Return the names of a table's chains with an expression, which has the kernel's name, such as `lookup`."""
    try:
        with _NfTables(family) as netlink:
            name = expression.encode() + b"\0"
            payloads = [rule for rule in netlink.listed(_GETRULE, text_attr(_TABLE, table)) if name in rule]
            rules_with = [attributes(rule, 4) for rule in payloads]
    except NetlinkError:
        return set()
    return {_text(rule[_RULE_CHAIN]) for rule in rules_with if _text(rule.get(_TABLE, b"")) == table}


def remove_rules(family: int, table: str, chain: str, wanted: "Callable[[bytes], bool]") -> None:
    """Delete each rule whose user data `wanted` accepts. Raises CniError 106."""
    for _ in range(_TRIES):
        in_chain = text_attr(_TABLE, table) + text_attr(_RULE_CHAIN, chain)
        handles = [handle for handle, userdata in rules(family, table, chain) if wanted(userdata)]
        if not handles or _delete(family, [(_DELRULE, 0, in_chain + attr(_RULE_HANDLE, handle)) for handle in handles]):
            return
    raise CniError(FIREWALL_FAILED, f"nftables: rules of {table} {chain} keep changing", "try again")


def remove_chains(family: int, table: str, wanted: "Callable[[str], bool]") -> None:
    """Delete each chain whose name `wanted` accepts, with its rules, in one transaction. Raises CniError 106."""
    for _ in range(_TRIES):
        names = [chain for chain in chains(family, table) if wanted(chain)]
        bodies = [text_attr(_TABLE, table) + text_attr(_CHAIN_NAME, name) for name in names]
        if not names or _delete(family, [(_DELCHAIN, 0, body) for body in bodies]):
            return
    raise CniError(FIREWALL_FAILED, f"nftables: chains of {table} keep changing", "try again")


def remove_table_if_empty(family: int, table: str) -> None:
    """Delete a table if it is empty; what another process adds at the same time stays."""
    _delete(family, [(_DELTABLE, _ONLY_IF_EMPTY, text_attr(_TABLE, table))], tolerated=(errno.ENOENT, errno.EBUSY))


def has_element(family: int, table: str, name: str, key: bytes) -> bool:
    """Return whether a set or map has an element with that key."""
    try:
        with _NfTables(family) as netlink:
            request = bytes((family, 0, 0, 0)) + _element(table, name, key)
            return bool(netlink.dump(_SUBSYSTEM << 8 | _GETSETELEM, request, flags=0))
    except NetlinkError:
        return False


def elements(family: int, table: str, name: str) -> list[tuple[bytes, bytes]]:
    """Return key and user data (which contain nft's comment) of each element of a set; none without the set."""
    try:
        with _NfTables(family) as netlink:
            listed = netlink.listed(_GETSETELEM, text_attr(_TABLE, table) + text_attr(_SET_NAME, name))
    except NetlinkError:
        return []
    keys_and_data = []
    for payload in listed:
        for element in repeated(attributes(payload, 4).get(_SET_ELEMENTS, b""), _ELEMENT):
            parts = attributes(element)
            key = attributes(parts.get(_ELEMENT_KEY, b"")).get(_DATA_VALUE, b"")
            keys_and_data.append((key, parts.get(_ELEMENT_USERDATA, b"")))
    return keys_and_data


def remove_element(family: int, table: str, name: str, key: bytes) -> None:
    """Delete an element of a set or map; a missing one is not an error. Raises CniError 106."""
    _delete(family, [(_DELSETELEM, 0, _element(table, name, key))])


def remove_table_of_sets(family: int, table: str, chain: str, names: "Sequence[str]") -> None:
    """Delete a table with one chain and these sets or maps, if they are all empty. Raises CniError 106."""
    in_table = text_attr(_TABLE, table)
    _delete(
        family,
        [
            (_DELCHAIN, 0, in_table + text_attr(_CHAIN_NAME, chain)),
            *((_DELSET, _ONLY_IF_EMPTY, in_table + text_attr(_SET_NAME, name)) for name in names),
            (_DELTABLE, _ONLY_IF_EMPTY, in_table),
        ],
        tolerated=(errno.ENOENT, errno.EBUSY),
    )


def ifname_key(name: str) -> bytes:
    """Return an interface's name as the key of a set or map of type `ifname` (IFNAMSIZ bytes)."""
    return name.encode().ljust(16, b"\0")


def _element(table: str, name: str, key: bytes) -> bytes:
    element = attr(_ELEMENT | NESTED, attr(_ELEMENT_KEY | NESTED, attr(_DATA_VALUE, key)))
    return text_attr(_TABLE, table) + text_attr(_SET_NAME, name) + attr(_SET_ELEMENTS | NESTED, element)


def _delete(family: int, messages: "list[_Message]", tolerated: tuple[int, ...] = (errno.ENOENT,)) -> bool:
    """Execute a batch; return False if it fails with a `tolerated` errno. Raises CniError 106."""
    try:
        with _NfTables(family) as netlink:
            netlink.transact(messages)
    except NetlinkError as error:
        if error.errno in tolerated:
            return False
        raise CniError(FIREWALL_FAILED, f"nftables: {error.strerror}") from None
    return True


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "replace")
