"""`cnictl version`: show the versions of what works together on this host."""

from cnictl.cli.output import Format, OutputOption, print_items, print_table
from cnictl.views import program_versions


def version(output: OutputOption = Format.TABLE) -> None:
    """Show the versions of cnictl, of the plugin in use, of the kernel, and of the runtimes on this host.

    `cnictl --version` prints the version of cnictl alone.

    \b
    cnictl version
    cnictl version -o json | jq -r .plugin
    """
    shown = program_versions.collect()
    if output is Format.JSON:
        print_items(shown.pop("items"), shown)
        return
    plugin = shown["plugin"] or "not installed"
    if shown["cnictl_is_newer"]:
        plugin += " (older than this cnictl; `cnictl plugin install` puts the new one into use)"
    elif shown["chosen"] not in ("", shown["plugin"]):
        plugin += f" (node.toml names {shown['chosen']}; `cnictl apply` puts it into use)"
    rows = [("cnictl", f"{shown['cnictl']}, Python {shown['python']}"), ("plugin", plugin), ("kernel", shown["kernel"])]
    rows += [(runtime["name"], runtime["version"] or "not known") for runtime in shown["items"]]
    print_table(("", ""), rows)
