"""Tables at every width: nothing is left out, no word is split, and the last column narrows first."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnictl.cli import layout
from cnictl.cli.layout import text_of, width_of

WIDTHS = (40, 60, 80, 140, 200)
COLUMNS = ("address", "container", "interface", "pod", "since", "state")
LONG = "n" * 253
ROWS = [
    ("10.244.0.5", "6f3c1e0b9a0d", "eth0", "default/web", "12:40:07", "live"),
    ("10.244.15.255", "6f3c1e0b9a0d", "eth0", f"default/{LONG}", "12:40:08", "stale: a boot since 07:55:14 that day"),
    ("fd00:244::aaaa:bbbb:cccc", "-", "net1", "默认/数据库", "12:40:09", f"unknown: {LONG} has 10.244.0.9/32"),
    ("-", "", "eth0", "e\u0301te\u0301", "12:40:10", "in flight"),
]  # fmt: skip


def shown(width: int | None, whole: int = 0) -> list[str]:
    """Return the lines of the table at a width."""
    return [text_of(line) for line in layout.table(COLUMNS, ROWS, width, whole)]


def words(texts: list[str]) -> list[str]:
    """Return every word of some texts, sorted, without the "-" of empty cells."""
    return sorted(word for text in texts for word in text.split() if word != "-")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_word_is_split_or_left_out(width: int) -> None:
    cells = [cell for row in ROWS for cell in row]
    labels = {*(f"{name}:" for name in COLUMNS), *(name.upper() for name in COLUMNS)}
    text = [word for word in words(shown(width)) if word not in labels]
    assert text == words(cells)


@pytest.mark.parametrize("width", WIDTHS)
def test_line_is_wider_than_the_screen_only_if_a_word_is(width: int) -> None:
    for line in shown(width):
        assert width_of(line) <= width or len(line.split()) == 1, line


@pytest.mark.parametrize("width", WIDTHS)
def test_columns_are_aligned(width: int) -> None:
    heading, *lines = shown(width)
    place = heading.index("INTERFACE") if "INTERFACE" in heading else heading.index("CONTAINER")
    for first in ("10.244.0.5 ", "10.244.15.255 "):
        (line,) = (line for line in lines if line.startswith(first))
        assert line[place - 1] == " "
        assert line[place] != " "


def test_last_column_is_wrapped_within_itself() -> None:
    rows = [("10.244.0.5", "stale: the veth of this pod is gone, and nobody answers at 10.244.0.5 on the bridge")]
    lines = [text_of(line) for line in layout.table(("address", "state"), rows, 80)]
    assert len(lines) == 3
    assert lines[2] == " " * 12 + "10.244.0.5 on the bridge"


def test_fields_are_below_their_row_under_80_columns() -> None:
    assert shown(60)[:3] == [
        "ADDRESS                   CONTAINER     INTERFACE",
        "10.244.0.5                6f3c1e0b9a0d  eth0",
        "    pod: default/web  since: 12:40:07  state: live",
    ]


def test_in_a_pipe_a_row_is_one_line_and_pads_no_other() -> None:
    lines = shown(None)
    assert len(lines) == 1 + len(ROWS)
    assert max(map(width_of, lines[:2])) < 120


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_command_to_copy_stays_on_one_line(width: int | None) -> None:
    command = "sysctl -w net.ipv4.ip_forward=1 && ip route replace 10.244.1.0/24 via 10.0.10.51 dev eth0 proto 67"
    rows = [("error", "ip-forward", command), ("warning", "other", "")]
    lines = [text_of(line) for line in layout.table(("", "check", "fix"), rows, width, 1)]
    assert lines == ["         CHECK", "error    ip-forward", f"    fix: {command}", "warning  other"]


def test_sentence_is_under_its_row_and_wrapped() -> None:
    rows = [("external", "failed", "next hop 10.0.2.53 does not answer ARP on eth0, see its own log", "ip neigh")]
    lines = [text_of(line) for line in layout.table(("check", "state", "cause", "hint"), rows, 40, 1, 1)]
    assert lines == [
        "CHECK     STATE",
        "external  failed",
        "    cause: next hop 10.0.2.53 does not",
        "      answer ARP on eth0, see its own",
        "      log",
        "    hint: ip neigh",
    ]
    assert len(layout.table(("check", "state", "cause", "hint"), rows, None, 1, 1)) == 4


def test_values_without_headings_are_also_wrapped_on_a_narrow_screen() -> None:
    rows = [("network", "mynet: 10.244.0.0/24, fd00:244::/64 of 10.244.0.0/20, fd00:244::/48"), ("bridge", "cni0 up")]
    lines = [text_of(line) for line in layout.table(("", ""), rows, 40)]
    assert lines[-1] == "bridge   cni0 up"
    assert all(line.startswith(("network  ", "         ", "bridge ")) for line in lines)


@pytest.mark.parametrize(
    ("used", "total", "filled"),
    [(0, 253, 0), (1, 253, 1), (13, 253, 2), (252, 253, 19), (253, 253, 20), (1, 1 << 64, 1)],
)
def test_bar_is_empty_or_full_only_at_0_or_100_percent(used: int, total: int, filled: int) -> None:
    assert layout.bar(used, total) == "█" * filled + "░" * (20 - filled)


def test_bar_is_ascii_if_the_encoding_needs_it() -> None:
    code = "from cnictl.cli import encoding, layout; encoding.make_lenient(); print(layout.bar(1, 4))"
    environment = {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, check=False)
    assert done.stdout == b"#####...............\n"


@given(
    st.lists(st.lists(st.text("ab \u6570\u0301-:", max_size=60), min_size=3, max_size=3), max_size=5),
    st.integers(20, 200),
    st.integers(0, 2),
)
def test_text_keeps_its_words(rows: list[list[str]], width: int, whole: int) -> None:
    columns = ("X1", "X2", "X3")
    lines = [text_of(line) for line in layout.table(columns, rows, width, whole)]
    labels = {*columns, *(f"{column}:" for column in columns)}
    kept = [word for word in words(lines) if word not in labels]
    assert kept == words([cell for row in rows for cell in row])


def test_table_in_a_pipe_needs_no_rich() -> None:
    code = (
        "import sys; from cnictl.cli import output; output.print_table(('a',), [('b',)]); "
        "sys.exit('rich' in sys.modules and 'rich.console' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False).returncode == 0
