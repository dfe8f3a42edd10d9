"""`cnictl status`: show the node on one screen, and where it differs from node.toml."""

from __future__ import annotations  # a type would execute the module that the loader postpones

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

from cnictl.cli import status_screen
from cnictl.cli.output import (
    Format,
    OutputOption,
    pause,
    print_json,
    print_json_line,
    print_layout,
    screen_size,
    screen_width,
)
from cnictl.cli.root import require_root
from cnictl.node.runs import converge, reset
from cnictl.node.spec import node_file, node_spec
from cnictl.views import status as status_view

_EVERY = 2.0
"""Seconds between two refreshes of --watch."""


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the status again every two seconds, until Ctrl-C.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show this node: the verdict, then what differs, then bridge, pods, addresses, peers, rules, plugin and conf.

    The first line says healthy only if everything was checked and works. Otherwise it says why not: faulty, not known
    (something could not be checked), or in doubt (no fault was found, but for example a peer is silent).

    Exit status 1 if anything differs from /etc/cnictl/node.toml or can't be checked (`cnictl plan` shows the difference
    line by line); if the kernel sends pods' packets elsewhere, for example by a policy rule (ip rule); if a peer
    answers but does not have its pod CIDR or does not forward to it; if a peer stays at its old address because the
    source's new entry for it is refused, and its pods do not answer there; or if the source of peers contradicts this
    node. A peer that does not answer is shown as silent, which is no fault. --watch shows as much as fits the terminal.

    \b
    cnictl status
    cnictl status --watch
    cnictl status -o json | jq '.resources[] | select(.state == "drifted")'
    """
    require_root("status", "reads the firewall's rules")
    spec = node_file.load()
    if spec is None:
        raise reset.no_node()
    if watch:
        _watch(spec, output)
    shown = status_view.collect(spec)
    if output is Format.JSON:
        print_json(shown)
    else:
        print_layout(status_screen.lines(shown, screen_width()))
    if status_view.has_fault(shown):
        raise typer.Exit(1)


def _watch(spec: node_spec.NodeSpec, output: Format) -> NoReturn:
    """Refresh the status until Ctrl-C. A terminal shows it on one screen, also after its size changes."""
    fits = output is not Format.JSON and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    with _resizes() as resized:
        while True:
            shown, at = status_view.collect(spec), time.strftime("%H:%M:%S")
            end = time.monotonic() + _EVERY
            _draw(shown, output, at, fits)
            while fits and select.select([resized], [], [], max(0.0, end - time.monotonic()))[0]:
                os.read(resized, 512)
                _draw(shown, output, at, fits)
            if not fits:
                pause(_EVERY)
            spec = converge.current_spec()


def _draw(shown: dict[str, Any], output: Format, at: str, fits: bool) -> None:
    if output is Format.JSON:
        print_json_line(shown)
    elif fits:
        size = screen_size()
        listed = status_screen.lines(shown, size.columns)
        last = f"{at}, every {_EVERY:g} s until Ctrl-C"
        print("\x1b[H\x1b[2J", end="")
        print_layout(status_screen.fitted(listed, size.columns, size.lines - 1, last))
        sys.stdout.flush()
    else:
        print_layout([*status_screen.lines(shown, screen_width()), []])
        sys.stdout.flush()


@contextmanager
def _resizes() -> Iterator[int]:
    """Yield a descriptor that becomes readable when the terminal's size changes."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    previous = signal.signal(signal.SIGWINCH, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGWINCH, previous)
        os.close(reader)
        os.close(writer)
