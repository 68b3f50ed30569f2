"""``waypost completion``: commands and flags, completed by the shell."""

from typing import Annotated, Literal

from cyclopts import Parameter

from waypost_worker.cli.app import build
from waypost_worker.cli.support.output import DONE, write


def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="your shell")], /) -> int:
    """Print a script that completes commands and flags.

    Write it to where your shell looks for such scripts, and open a new terminal.
    After an upgrade of Waypost, write it again.

    For example:

      waypost completion bash > ~/.local/share/bash-completion/completions/waypost
      waypost completion zsh > ~/.zfunc/_waypost
      waypost completion fish > ~/.config/fish/completions/waypost.fish
    """
    write(build().generate_completion(shell=shell))
    return DONE
