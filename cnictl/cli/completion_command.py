"""`cnictl completion`: print a shell's completion script."""

from typing import Annotated

import typer

from cnictl.cli.completion_scripts import SCRIPTS
from cnictl.core.errors import UsageProblem


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the script with which a shell completes commands, options, and the names of pods, peers, runs and links.

    As root, put it where the shell looks for it, for all users of this host; or load it in your shell's start-up file:

    \b
    cnictl completion bash | sudo tee /usr/share/bash-completion/completions/cnictl
    cnictl completion zsh | sudo tee /usr/share/zsh/vendor-completions/_cnictl
    cnictl completion fish | sudo tee /usr/share/fish/vendor_completions.d/cnictl.fish
    echo 'source <(cnictl completion bash)' >> ~/.bashrc
    """
    if shell not in SCRIPTS:
        raise UsageProblem(f"there is no completion for the shell {shell!r}", f"name one of {', '.join(SCRIPTS)}")
    print(SCRIPTS[shell], end="")
