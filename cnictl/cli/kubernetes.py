"""`cnictl kubernetes`: set up the access with which nodes learn their peers from a Kubernetes cluster."""

from typing import Annotated

import typer

from cnictl.cli.output import say, working, write
from cnictl.cli.root import require_root
from cnictl.core.errors import UsageProblem
from cnictl.node.plugin import output_file
from cnictl.node.reach import extras, kubernetes_access


def rbac() -> None:
    """Print the ServiceAccount, the roles and the token Secret for `kubectl apply`.

    They let cnictl read Nodes, and the two ConfigMaps that hold the cluster's pod networks. The account can't change
    anything.

    \b
    cnictl kubernetes rbac | kubectl apply -f -
    """
    write(kubernetes_access.RBAC.rstrip())


def kubeconfig(
    admin: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="FILE",
            help="An administrator's kubeconfig, which may read the Secret. Default: kubeadm's or k3s's on this host.",
        ),
    ] = "",
    output: Annotated[str, typer.Option(metavar="FILE", help="The file to write.")] = kubernetes_access.KUBECONFIG,
    server: Annotated[
        str, typer.Option(metavar="ADDRESS", help="URL at which nodes reach the API server. Default: as in --from.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing: say what would be written.")] = False,
) -> None:
    """Write the nodes' credential, which holds the token of the ServiceAccount that `rbac` prints.

    Run it where an administrator's kubeconfig is, then copy FILE to /etc/cnictl/kubeconfig on each node. FILE has mode
    600. The command does not replace a file that it did not write.

    \b
    cnictl kubernetes kubeconfig
    cnictl kubernetes kubeconfig --from ~/.kube/config --output node.kubeconfig
    """
    if server and not server.startswith(("https://", "http://")):
        raise UsageProblem(f"--server {server} is not a URL", f"add --server https://{server}")
    if output == kubernetes_access.KUBECONFIG:
        require_root("kubernetes kubeconfig", f"writes {output}")
    path = kubernetes_access.admin(admin)
    with working("reading the token"):
        credential = extras.kubernetes_credential(path, server)
    changes = kubernetes_access.write(output, credential, dry_run)
    if credential.is_local:
        say(f"{credential.server} is an address of this host only: for other nodes add --server https://ADDRESS:6443")
    if output_file.is_stdout(output) and not dry_run:
        return
    done = ("would write" if dry_run else "written") if changes else "unchanged"
    say(f"{done}: {output}, a credential for {credential.server}")
