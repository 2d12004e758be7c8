"""What a shell completes: recipes, model files, formats, roles and types; and `completion` itself.

Names are read from directories, and at most one recipe is opened; nothing else is loaded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from ..errors import EdgeEftError
from ..system import at_home
from .command import command as new_command

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_EDGE_EFT_COMPLETE"
_AS_IT_IS = """            COMPREPLY+=($value)
"""
# Bash puts a completion into the line as it is: a file called $(rm x).gguf must not be a command.
_QUOTED = r"""            if [[ ${COMP_WORDS[COMP_CWORD]} == [\"\']* ]]; then
                [[ $value == *[\"\'\\\`\$!]* ]] && continue
            elif [[ $value == "~"*/* ]]; then
                printf -v type %q "${value#*/}"
                value="${value%%/*}/$type"
            elif [[ $value == *[^A-Za-z0-9_@%+=:,./-]* ]]; then
                printf -v value %q "$value"
            fi
            COMPREPLY+=("$value")
"""


@new_command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script by which a shell completes what is typed after edge-eft.

    Recipes are completed, and GGUF files, prompt formats, roles, deltas and types.

    \b
    Examples:
      eval "$(edge-eft completion bash)"                                  # in ~/.bashrc
      eval "$(edge-eft completion zsh)"                                   # in ~/.zshrc
      edge-eft completion fish > ~/.config/fish/completions/edge-eft.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from .terminal import say

    kind = get_completion_class(shell)
    assert kind is not None, shell
    root = click.get_current_context().find_root().command
    # The base class's method: bash's own one asks which bash there is, and may complain.
    script = ShellComplete.source(kind(root, {}, "edge-eft", _VARIABLE))
    if shell == "bash":  # no space after a directory, so that its files can follow
        stay = "    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace"
        script = script.replace("\n    return 0\n", f"\n{stay}\n    return 0\n")
        assert _AS_IT_IS in script
        script = script.replace(_AS_IT_IS, _QUOTED)
    say(script)


def _begun(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if _is_begun(name, incomplete)]


def _is_begun(name: str, incomplete: str) -> bool:
    """Return whether a name begins so, and can be typed: a line end would begin another name."""
    return name.startswith(incomplete) and name.isprintable()


def complete_recipe(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names that a recipe may have, or say that it is a path."""
    taken = ctx.get_parameter_source("recipe") is ParameterSource.COMMANDLINE
    if param.name == "words" and (
        taken or any(ctx.params.get(name) for name in ("words", "tuned", "reference"))
    ):
        return []  # a prompt follows, which nobody can complete
    from ..files.recipe_names import catalogue, embedded_recipes, own_recipes

    places = (catalogue(), "to pull"), (own_recipes(), "yours"), (embedded_recipes(), "embedded")
    about = {name: what for names, what in places for name in names}
    found = [
        CompletionItem(name, help=what)
        for name, what in sorted(about.items())
        if _is_begun(name, incomplete)
    ]
    return found or [CompletionItem(incomplete, type="file")]


def complete_here(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of recipes that are here and were not typed yet."""
    from ..files.recipe_names import embedded_recipes, own_recipes

    names = own_recipes().keys() | (
        embedded_recipes().keys() if ctx.command.name != "remove" else ()
    )
    names -= set(ctx.params.get(param.name or "") or ())
    return _begun(sorted(names), incomplete)


def complete_gguf(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the GGUF files and the directories that begin so."""
    folder, begun = os.path.split(incomplete)
    found = []
    with contextlib.suppress(OSError, ValueError, EdgeEftError):
        place = at_home(folder) if folder else "."
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if not entry.name.startswith(begun) or (entry.name.startswith(".") and not begun):
                continue
            if not entry.name.isprintable():
                continue
            name = os.path.join(folder, entry.name)
            if entry.is_dir():
                found.append(CompletionItem(f"{name}/"))
            elif entry.name.lower().endswith(".gguf"):
                found.append(CompletionItem(name))
    return found


def complete_format(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the prompt formats."""
    from ..text.formats import FORMATS

    return _begun(FORMATS, incomplete)


def complete_role(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the roles, with the deltas of the recipe that is named."""
    names = (f"tuned:{delta}" for delta in _deltas(ctx))
    return _begun(["base", "tuned", "reference", *names], incomplete)


def complete_delta(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the deltas of the recipe that is named."""
    return _begun(_deltas(ctx), incomplete)


def complete_mix(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the list so far with each delta that it does not have yet."""
    *before, begun = incomplete.split(",")
    had = [part.partition("=")[0] for part in before]
    names = [name for name in _deltas(ctx) if name not in had and name.startswith(begun)]
    return [CompletionItem(",".join([*before, f"{name}="])) for name in names]


def complete_type(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the types that models are usually quantised to."""
    from ..convert.options import AUTO, AUTO_TYPES

    return _begun(map(str.lower, (AUTO, *AUTO_TYPES)), incomplete.lower())


def _deltas(ctx: click.Context) -> list[str]:
    """Return the deltas of the recipe on the command line, or of the default one."""
    from ..files.recipe_names import load_recipe
    from .naming import DEFAULT_RECIPE

    # Where the value of an option is being typed, click has not given out the words yet.
    words = ctx.params.get("words") or ctx.args or [DEFAULT_RECIPE]
    typed = ctx.get_parameter_source("recipe") is ParameterSource.COMMANDLINE
    with contextlib.suppress(EdgeEftError, OSError):
        return list(load_recipe(ctx.params["recipe"] if typed else words[0]).deltas)
    return []
