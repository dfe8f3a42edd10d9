"""`cnictl cluster install` and `cnictl cluster upgrade`: the same version of cnictl on every host of a cluster file."""

from collections.abc import Sequence
from typing import Annotated

import typer

import cnictl
from cnictl.cli import asking
from cnictl.cli.asking import YesOption
from cnictl.cli.cluster import FileOption, LimitOption, say_hints
from cnictl.cli.output import Format, OutputOption, print_json, print_table, say, working
from cnictl.cluster import bundle, host_install, inventory
from cnictl.cluster import install as rollout
from cnictl.cluster.bundle import Bundle
from cnictl.cluster.install import HostInstall, Rollout

BundleOption = Annotated[
    str,
    typer.Option("--bundle", metavar="FILE", help="A bundle from `make bundle`. Default: a bundle of this cnictl."),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing: show which hosts would get which version.")
]


def install(
    file: FileOption = "",
    limit: LimitOption = None,
    bundle_file: BundleOption = "",
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Install cnictl on the hosts of the cluster file that don't have it, one after the other.

    Each host gets a bundle over ssh: cnictl and everything that it imports. The host needs Python 3.11 or newer, but no
    registry. It checks the bundle's SHA-256 before it runs anything from it. cnictl is installed in
    /usr/local/lib/cnictl-cli, and /usr/local/bin/cnictl starts it. Nothing else on the host is changed: `cnictl cluster
    apply` sets it up as a node. If a host fails, the command stops there.

    \b
    cnictl cluster install
    cnictl cluster install --limit node6 --dry-run
    """
    _roll_out(file, limit, bundle_file, yes, dry_run, output, is_upgrade=False)


def upgrade(
    file: FileOption = "",
    limit: LimitOption = None,
    bundle_file: BundleOption = "",
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Upgrade cnictl and the plugin on all hosts of the cluster file, one after the other.

    Running pods keep their network. On each host, the new command is installed beside the previous one, then its
    plugin, as `cnictl plugin install` does. Before the next host, a probe pod must work, and `cnictl doctor` must find
    no error that it did not find before. If that fails, the host's previous plugin and command are restored, and the
    remaining hosts are not changed. Exit status 1 unless every host has the bundle's version.

    \b
    cnictl cluster upgrade
    cnictl cluster upgrade --bundle cnictl-0.3.0-bundle.tar.gz --limit node1
    """
    _roll_out(file, limit, bundle_file, yes, dry_run, output, is_upgrade=True)


def _roll_out(
    file: str,
    limit: Sequence[str] | None,
    bundle_file: str,
    yes: bool,
    dry_run: bool,
    output: Format,
    is_upgrade: bool,
) -> None:
    nodes = inventory.read(file).limited(limit or [])
    sent = bundle.load(bundle_file) if bundle_file else bundle.of_running()
    with inventory.hosts(nodes, host_install.OBSERVE) as hosts, working(lines=output is Format.TABLE) as tell:
        rolling = Rollout(hosts, nodes, sent, is_upgrade, tell)
        rows = rolling.plan()
        changing = [row.node.name for row in rows if row.state == rollout.WOULD_CHANGE]
        tell.pause()
        if changing and not dry_run:
            if asking.can_ask(yes):
                _show(rows, sent)
                asking.confirm(f"{'Upgrade' if is_upgrade else 'Install on'} {', '.join(changing)}?")
            try:
                rows = rolling.carry_out(rows)
            except KeyboardInterrupt:
                say("interrupted: the host in progress may have either version; run the same command to continue")
                raise
    if output is Format.JSON:
        described = {"version": sent.version, "name": sent.name, "sha256": sent.sha256}
        print_json({"items": [row.as_json() for row in rows], "bundle": described})
    else:
        _show(rows, sent)
        _say_outcome(rows, sent)
    if not all(row.is_good for row in rows):
        raise typer.Exit(1)


def _show(rows: Sequence[HostInstall], sent: Bundle) -> None:
    table = []
    for row in rows:
        would = row.state == rollout.WOULD_CHANGE
        plugin = sent.version if would and row.before.is_node else row.now.plugin
        table.append(
            (
                row.node.name,
                row.state,
                _change(row.before.cnictl, sent.version if would else row.now.cnictl),
                _change(row.before.plugin, plugin),
                row.why,
            )
        )
    print_table(("node", "outcome", "cnictl", "plugin", "why"), table)
    say_hints([(row.node.name, row.hint) for row in rows])


def _say_outcome(rows: Sequence[HostInstall], sent: Bundle) -> None:
    if sent.version != cnictl.__version__ and any(row.state == rollout.CHANGED for row in rows):
        say(f"this machine has cnictl {cnictl.__version__}: install {sent.version} here before other cluster commands")
    failed = next((row for row in rows if row.state in (rollout.REVERTED, rollout.FAILED, rollout.LOST)), None)
    if failed is None:
        return
    having = [row.node.name for row in rows if row.state in (rollout.UNCHANGED, rollout.CHANGED)]
    rest = [row.node.name for row in rows if row.state == rollout.NOT_STARTED]
    say(
        f"stopped at {failed.node.name}; cnictl {sent.version} is on {', '.join(having) or 'no host'}"
        + (f"; not started: {', '.join(rest)}" if rest else "")
    )


def _change(before: str, after: str) -> str:
    return f"{before or 'none'} → {after}" if before != after else after
