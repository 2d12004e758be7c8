"""Recipes by name: the embedded ones, the user's own, and the catalogue of what can be pulled.

Where one name stands for several, an embedded recipe comes before one's own and that before the
catalogue's: what was pulled takes the place of what can be.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import RecipeError
from ..system import recipe_directory
from ..validate import checked_call
from .hub_file import is_device_name
from .plain_text import reason
from .recipe import Recipe, absolute
from .recipe_toml import read_recipe, to_toml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def embedded_recipes() -> dict[str, Path]:
    """Return the recipes that come with their models: name → TOML file, by name."""
    return recipes_in(_models())


def catalogue() -> dict[str, Path]:
    """Return the recipes whose models are on the hub: name → TOML file, by name."""
    return recipes_in(_models() / "catalogue")


def own_recipes() -> dict[str, Path]:
    """Return the recipes in the user's directory: name → TOML file. Empty if there are none."""
    try:
        return recipes_in(recipe_directory())
    except OSError:  # no home: nobody has put anything there
        return {}


def own_recipe(name: str) -> Path | None:
    """Return the user's own recipe of a name, in any case of letters; None if there is none."""
    return named(name, own_recipes())


def named(name: str, recipes: Mapping[str, Path]) -> Path | None:
    """Return the one of `recipes` that `name` means, in any case of letters; None if none."""
    same = (path for known, path in recipes.items() if known.lower() == name.lower())
    return recipes.get(name) or next(same, None)


def list_recipes() -> dict[str, Path]:
    """Return every recipe that has a name here: name → TOML file."""
    return catalogue() | own_recipes() | embedded_recipes()


@checked_call(RecipeError)
def load_recipe(path_or_name: str | os.PathLike[str]) -> Recipe:
    """Read a recipe: the path of a TOML file, or a name (see `list_recipes`).

    A plain word is a name first, then a path; Qwen3:8B is qwen3-8b. The model files are not looked
    at (`verify` does), and may have to be pulled.

    Raises RecipeError, naming the file and the key, if there is no such recipe, or it is not one.
    """
    name = str(path_or_name)
    known = {} if os.path.dirname(name) else list_recipes()  # to look costs with each recipe there
    path = known.get(name) or absolute(path_or_name)
    if not os.path.exists(path):  # as people write names of models elsewhere
        path = named(name.replace(":", "-"), known) or path
    try:
        return read_recipe(path)
    except (OSError, ValueError) as error:
        raise RecipeError(_unread(name, known, error)) from None


def save_recipe(recipe: Recipe, *, force: bool = False, comment: str = "") -> Path:
    """Write `recipe` into the user's directory, where its name finds it. Returns the file.

    The file is whole or not there: it is written under another name and renamed.

    Args:
        recipe: its `name` becomes the file's.
        force: whether it may replace one of that name.
        comment: lines for people, at its head.

    Raises RecipeError if the name is no plain one, is an embedded recipe's or taken, or the file
    cannot be written.
    """
    name = recipe.name
    check_name(name)
    if not force:
        check_free(name)
    same = own_recipe(name)
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    try:
        directory = recipe_directory()
        directory.mkdir(parents=True, exist_ok=True)
        # On a file system that ignores case the old name would stay and stand for the new one.
        path = same or directory / f"{name}.toml"
        write_whole(path, head + to_toml(recipe, directory))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""  # a full disk names none
        raise RecipeError(
            f"recipe {name!r} cannot be saved ({reason(error)}{where}); "
            "EDGE_EFT_HOME names another directory"
        ) from None
    return path


def check_place() -> None:
    """Raise RecipeError if `save_recipe` could not write. Nothing is made."""
    try:
        directory = recipe_directory()
    except OSError as error:
        raise RecipeError(
            f"{reason(error)}, where the recipe would go; EDGE_EFT_HOME names a directory"
        ) from None
    there = next(place for place in (directory, *directory.parents) if os.path.exists(place))
    if not os.path.isdir(there) or not os.access(there, os.W_OK):
        raise RecipeError(
            f"{there}: cannot be written, and the recipe is to go there; EDGE_EFT_HOME names "
            "another directory"
        )


def check_free(name: str) -> None:
    """Raise RecipeError if the user has a recipe of that name already."""
    if same := own_recipe(name):
        raise RecipeError(
            f"there is a recipe {same.stem!r} already; take another name, or remove it first: "
            f"edge-eft remove {same.stem}"
        )


def adapter_beside(path: Path) -> Path:
    """Return where an adapter is kept that was converted for the recipe at `path` alone."""
    return path.with_suffix(".adapter.gguf")


def check_name(name: str) -> None:
    """Raise RecipeError if a recipe of the user's own cannot be called `name`."""
    if not _NAME.fullmatch(name) or is_device_name(name) or name.lower().endswith(".toml"):
        raise RecipeError(
            f"{name!r:.80} cannot be the name of a recipe; use up to 64 letters, digits, '.', '_' "
            "and '-'"
        )
    if name.lower() in embedded_recipes():
        raise RecipeError(f"{name!r} is a recipe that comes with edge_eft; take another name")


def check_new_name(name: str) -> None:
    """Raise RecipeError as `check_name`, or if `name` means a recipe of the catalogue to others."""
    check_name(name)
    if name.lower() in catalogue():
        raise RecipeError(
            f"{name!r} is a recipe of the catalogue, for which another would stand; take another "
            "name"
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file that is whole or not there: it gets its name when it is on the disk."""
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _models() -> Path:
    here = Path(__file__).resolve().parents[1]
    models = here / "models"  # in an installed wheel
    # A wheel's neighbour called `models` belongs to somebody else: only a checkout's is ours.
    if not models.is_dir() and (here.parent / "pyproject.toml").is_file():
        models = here.parent / "models"
    return models


def recipes_in(directory: Path) -> dict[str, Path]:
    """Return the recipes in a directory: name → TOML file, by name."""
    # Hidden files are half-written ones, and what editors leave. To open a pipe may wait for ever.
    found = sorted(path for path in directory.glob("*.toml") if not path.name.startswith("."))
    return {path.stem: path for path in found if not _may_wait(path)}


def _may_wait(path: Path) -> bool:
    return os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path))


def natural(name: str) -> list[tuple[float, str]]:
    """Return a key by which names sort as people count: qwen3-8b before qwen3-14b."""
    found = re.findall(r"(\d+(?:\.\d+)?)|(\D+)", name.lower())
    return [(float(number or "inf"), word) for number, word in found]


def near(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return up to `most` of the `known` names that `word` may stand for, the likeliest first."""
    names = {name.lower(): name for name in sorted(known, key=natural)}
    word = word.lower()
    # Who types half a name means one that begins with it: qwen3 is qwen3-4b, and not qwen2.5.
    begun = [name for name in names if word and name.startswith(word)]
    within = [name for name in names if word and word in name]
    alike = difflib.get_close_matches(word, names, n=most)
    return [names[name] for name in dict.fromkeys([*begun, *within, *alike])][:most]


def not_known(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return what to say of a name that none of the `known` recipes has: which are near it.

    Args:
        name: as it was typed.
        known: the names that there are.
        otherwise: added if none is near.
    """
    nearest = near(name, known)
    if not nearest:
        return f"recipe {name!r:.120} is not known; `edge-eft list` shows the names{otherwise}"
    here = own_recipes().keys() | embedded_recipes().keys()
    hint = "" if nearest[0] in here else f" (edge-eft pull {nearest[0]})"
    return f"recipe {name!r:.120} is not known; near: {', '.join(nearest)}{hint}"


def _unread(name: str, known: Iterable[str], error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and not os.path.dirname(name):
        from .unfinished import stopped_pull  # which imports this module

        if begun := stopped_pull(name):
            pull = f"edge-eft pull {begun.stem}"
            return f"recipe {name!r} is not here yet: its pull has not ended; {pull} goes on"
        otherwise = ", or give the path of a TOML file"
        return not_known(name, known, otherwise + " before the prompt" * (" " in name.strip()))
    wanted = "the path of a TOML file or a name that `edge-eft list` shows (atlas)"
    if isinstance(error, IsADirectoryError):
        wanted += "; `edge-eft convert` makes a recipe of the directories of Hugging Face"
    return f"recipe {name!r} cannot be read ({reason(error)}); give {wanted}"
