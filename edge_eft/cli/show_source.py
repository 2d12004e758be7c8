"""What `show` tells of a recipe whose models are on the hub: where, how large, what they will take.

Nothing is loaded, and the hub is not asked: it is what the recipe states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..text.formats import is_named
from .terminal import one_line

if TYPE_CHECKING:
    from ..files.recipe import Recipe

_CONFIDENCE = {
    None: "as pulled",
    "exact": "size or hash seen by the catalogue's authors",
    "named": "file name seen by the catalogue's authors, size about right",
    "guessed": "named as its author names files, not seen; pull looks for it",
}


def description(recipe: Recipe) -> dict[str, Any]:
    """Return what there is to tell, as plain data: `list`'s, and the command that gets it."""
    from ..files.pulled import pull_command
    from ..files.recipe_names import catalogue
    from .shelf import entry_of

    path = str(recipe.path)
    kind = "catalogue" if path in map(str, catalogue().values()) else "own"
    about = entry_of(recipe, recipe.name, kind).as_data()  # type: ignore[arg-type]
    deltas = {delta.name: delta.weight for delta in recipe.deltas.values()}
    return about | {"deltas": deltas, "pull": pull_command(recipe)}


def source_line(source: Mapping[str, Any] | str) -> str:
    """Return where a model comes from, on one line."""
    if isinstance(source, str):
        return one_line(source)
    revision = f" at {source['revision'][:12]}" if source["revision"] else ", newest revision"
    is_looked_up = source["revision"] or source["confidence"]
    known = _CONFIDENCE[source["confidence"]] if is_looked_up else "pull looks for it"
    gated = "; gated" if source["gated"] else ""
    return f"{source['repo']} {source['file']}{revision} ({known}{gated})"


def prompt_name(prompt: str) -> str:
    """Return the name of a prompt format; an inline template is long."""
    return one_line(prompt) if is_named(prompt) else "inline Jinja"
