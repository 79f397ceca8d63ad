"""Prints what completes the words of `alignkit` in a shell: its commands, and recipes where one is expected."""

import argparse
from collections.abc import Mapping, Sequence

from align.recipe.shipped import shipped_recipes

TAKES_A_RECIPE = ("check", "train", "sweep", "verify", "recipes")

BASH = """_alignkit() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    elif [[ " {takers} " == *" ${{COMP_WORDS[1]}} "* ]] && [ "$COMP_CWORD" -eq 2 ]; then
        COMPREPLY=($(compgen -W "{recipes}" -- "$word") $(compgen -f -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -F _alignkit alignkit
"""
ZSH = "autoload -Uz bashcompinit && bashcompinit\n" + BASH
FISH_COMMAND = "complete -c alignkit -f -n __fish_use_subcommand -a {name} -d '{about}'\n"
FISH_RECIPES = "complete -c alignkit -n '__fish_seen_subcommand_from {takers}' -a '{recipes}'\n"


def main(argv: Sequence[str], commands: Mapping[str, str]) -> int:
    """`alignkit completion bash|zsh|fish`; for bash: `source <(alignkit completion bash)`.

    Args:
        argv: What follows the command.
        commands: Every command with a line about it.
    """
    parser = argparse.ArgumentParser(prog="alignkit completion", allow_abbrev=False)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    print(script(parser.parse_args(argv).shell, commands), end="")
    return 0


def script(shell: str, commands: Mapping[str, str]) -> str:
    """The script for a shell."""
    words = {"takers": " ".join(TAKES_A_RECIPE), "recipes": " ".join(shipped_recipes())}
    if shell == "fish":
        lines = [FISH_COMMAND.format(name=n, about=a.replace("'", "")) for n, a in commands.items()]
        return "".join(lines) + FISH_RECIPES.format(**words)
    return {"bash": BASH, "zsh": ZSH}[shell].format(commands=" ".join(commands), **words)
