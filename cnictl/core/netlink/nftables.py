"""Objects of nf_tables listed and deleted by netlink: no `nft` need be there, and the kernel decides what is empty.

Nothing is made here: rules are nft's to compile. Source: linux/netfilter/nf_tables.h, net/netfilter/nfnetlink.c.
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
"""Listings that another process's removal may overtake before this gives up."""

_USUAL = 1 << 16
"""Bytes of a transaction that every socket's buffer takes; the kernel refuses to queue one that has more."""

_HEADER = Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port

_Message = tuple[int, int, bytes]
"""Kind, flags, body without nfgenmsg."""


class _NfTables(Netlink):
    """A netlink socket for transactions: all messages of a batch are carried out, or none."""

    def __init__(self, family: int) -> None:
        super().__init__(NETLINK_NETFILTER)
        self._family = family

    def __enter__(self) -> "_NfTables":
        return self

    def listed(self, kind: int, body: bytes) -> list[bytes]:
        return self.dump(_SUBSYSTEM << 8 | kind, bytes((self._family, 0, 0, 0)) + body)

    def transact(self, messages: "Sequence[_Message]") -> None:
        """Raises NetlinkError of the first message that was refused; then nothing is changed.

        A transaction is one datagram, however long. Only its last message asks for an answer: refusals are answered
        all the same and ahead of that, and the answers of thousands would not fit the socket's buffer.
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
                continue  # later refusals were lost: the first is in the buffer
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
    """Names of a family's tables; none without nf_tables."""
    try:
        with _NfTables(family) as netlink:
            return [_text(attributes(one, 4)[_TABLE]) for one in netlink.listed(_GETTABLE, b"") if one[0] == family]
    except NetlinkError:
        return []


def chains(family: int, table: str) -> list[str]:
    """Names of a table's chains; none where there is no such table, or no nf_tables."""
    try:
        with _NfTables(family) as netlink:
            found = [attributes(one, 4) for one in netlink.listed(_GETCHAIN, text_attr(_TABLE, table))]
    except NetlinkError:
        return []
    # older kernels list all tables' chains whatever was asked for
    return [_text(one[_CHAIN_NAME]) for one in found if _text(one.get(_TABLE, b"")) == table]


def rules(family: int, table: str, chain: str) -> list[tuple[bytes, bytes]]:
    """Handle and user data (nft keeps the comment there) of each rule of a chain; none where there is none."""
    try:
        with _NfTables(family) as netlink:
            body = text_attr(_TABLE, table) + text_attr(_RULE_CHAIN, chain)
            found = [attributes(one, 4) for one in netlink.listed(_GETRULE, body)]
    except NetlinkError:
        return []
    return [(one[_RULE_HANDLE], one.get(_RULE_USERDATA, b"")) for one in found if _text(one[_RULE_CHAIN]) == chain]


def chains_with(family: int, table: str, expression: str) -> set[str]:
    """Names of a table's chains in whose rules an expression occurs, by the kernel's name for it: `lookup`."""
    try:
        with _NfTables(family) as netlink:
            named = expression.encode() + b"\0"
            listed = [one for one in netlink.listed(_GETRULE, text_attr(_TABLE, table)) if named in one]
            found = [attributes(one, 4) for one in listed]
    except NetlinkError:
        return set()
    return {_text(one[_RULE_CHAIN]) for one in found if _text(one.get(_TABLE, b"")) == table}


def remove_rules(family: int, table: str, chain: str, wanted: "Callable[[bytes], bool]") -> None:
    """Delete each rule whose user data are `wanted`. Raises CniError 106."""
    for _ in range(_TRIES):
        named = text_attr(_TABLE, table) + text_attr(_RULE_CHAIN, chain)
        handles = [handle for handle, userdata in rules(family, table, chain) if wanted(userdata)]
        if not handles or _delete(family, [(_DELRULE, 0, named + attr(_RULE_HANDLE, one)) for one in handles]):
            return
    raise CniError(FIREWALL_FAILED, f"nftables: rules of {table} {chain} come and go", "try again")


def remove_chains(family: int, table: str, wanted: "Callable[[str], bool]") -> None:
    """Delete each chain whose name is `wanted`, with its rules, in one transaction. Raises CniError 106."""
    for _ in range(_TRIES):
        found = [one for one in chains(family, table) if wanted(one)]
        named = [text_attr(_TABLE, table) + text_attr(_CHAIN_NAME, one) for one in found]
        if not found or _delete(family, [(_DELCHAIN, 0, one) for one in named]):
            return
    raise CniError(FIREWALL_FAILED, f"nftables: chains of {table} come and go", "try again")


def remove_table_if_empty(family: int, table: str) -> None:
    """Delete a table that holds nothing; what another process puts there at the same time stays."""
    _delete(family, [(_DELTABLE, _ONLY_IF_EMPTY, text_attr(_TABLE, table))], tolerated=(errno.ENOENT, errno.EBUSY))


def has_element(family: int, table: str, name: str, key: bytes) -> bool:
    """Whether a set or map has an element of that key."""
    try:
        with _NfTables(family) as netlink:
            asked = bytes((family, 0, 0, 0)) + _element(table, name, key)
            return bool(netlink.dump(_SUBSYSTEM << 8 | _GETSETELEM, asked, flags=0))
    except NetlinkError:
        return False


def elements(family: int, table: str, name: str) -> list[tuple[bytes, bytes]]:
    """Key and user data (nft keeps the comment there) of each element of a set; none where there is no such set."""
    try:
        with _NfTables(family) as netlink:
            listed = netlink.listed(_GETSETELEM, text_attr(_TABLE, table) + text_attr(_SET_NAME, name))
    except NetlinkError:
        return []
    found = []
    for payload in listed:
        for one in repeated(attributes(payload, 4).get(_SET_ELEMENTS, b""), _ELEMENT):
            parts = attributes(one)
            key = attributes(parts.get(_ELEMENT_KEY, b"")).get(_DATA_VALUE, b"")
            found.append((key, parts.get(_ELEMENT_USERDATA, b"")))
    return found


def remove_element(family: int, table: str, name: str, key: bytes) -> None:
    """Delete an element of a set or map; none there is no error. Raises CniError 106."""
    _delete(family, [(_DELSETELEM, 0, _element(table, name, key))])


def remove_table_of_sets(family: int, table: str, chain: str, names: "Sequence[str]") -> None:
    """Delete a table whose one chain looks things up in its sets, if none holds anything. Raises CniError 106."""
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
    one = attr(_ELEMENT | NESTED, attr(_ELEMENT_KEY | NESTED, attr(_DATA_VALUE, key)))
    return text_attr(_TABLE, table) + text_attr(_SET_NAME, name) + attr(_SET_ELEMENTS | NESTED, one)


def _delete(family: int, messages: "list[_Message]", tolerated: tuple[int, ...] = (errno.ENOENT,)) -> bool:
    """One transaction; False if it was refused for a reason that is `tolerated`. Raises CniError 106."""
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
