"""Models that `pull` got: whether they are here still, and how they leave the hub's cache.

`hub_cache` says how the cache is laid out; on systems without links the names in a snapshot are the
contents themselves.

The cache belongs to other programs as well. A file is taken for one of it by its path alone, which
has to be the one that its recipe's source says; what is removed lies in its repository's folder,
whatever links say. Here is no network and no huggingface_hub.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import ModelFileError, RecipeError
from ..system import byte_size
from .gguf_split import part_paths
from .hub_cache import folder_name
from .hub_file import COMMIT, HubFile
from .recipe import ModelSpec, Recipe
from .recipe_names import list_recipes

_REPOSITORY = re.compile(r"models--[\w.-]+", re.ASCII)


def pull_command(recipe: Recipe) -> str:
    """Return the command that gets a recipe's models: by its name if it has one, else its path."""
    names = [name for name, path in list_recipes().items() if path == recipe.path]
    return f"edge-eft pull {names[0] if names else shlex.quote(str(recipe.path or recipe.name))}"


def model_files(spec: ModelSpec) -> tuple[Path, ...]:
    """Return the files that a model's own content is in: all parts of it, or the adapter's."""
    return part_paths(spec.lora or spec.file)


def bytes_to_pull(models: Iterable[ModelSpec]) -> int | None:
    """Return what `models` that only the hub has are together; None if a size is not known."""
    sizes = {spec.source: spec.source.size for spec in models if isinstance(spec.source, HubFile)}
    return sum(size for size in sizes.values() if size) if all(sizes.values()) else None


def is_for_lora(recipe: Recipe) -> bool:
    """Return whether `pull --for-lora` got a recipe's models, and no other pull the rest."""
    large, small = recipe.instruct, next(iter(recipe.deltas.values())).tuned
    return recipe.needs_pull and large is not None and not (large.needs_pull or small.needs_pull)


def check_here(recipe: Recipe) -> None:
    """Raise RecipeError, with the command, if a model of `recipe` has to be pulled (again)."""
    roles = recipe.roles()
    missing = {role: spec for role, spec in roles.items() if spec.needs_pull}
    if missing:
        size = bytes_to_pull(missing.values())
        amount = f" ({byte_size(size)} to fetch)" if size else ""
        raise RecipeError(
            f"recipe {recipe.name!r}: {', '.join(missing)} not on this machine yet; get it with "
            f"{pull_command(recipe)}{amount}"
        )
    for role, spec in roles.items():
        if isinstance(spec.source, HubFile):
            gone = [path for path in model_files(spec) if not os.path.exists(path)]
            if gone:
                raise RecipeError(
                    f"recipe {recipe.name!r}: the file of {role} is not there any more "
                    f"({gone[0]}); get it again with {pull_command(recipe)}"
                )


@contextlib.contextmanager
def told_to_pull(recipe: Recipe) -> Iterator[None]:
    """Add the command that mends it to a ModelFileError about a file that a pull got."""
    try:
        yield
    except ModelFileError as error:
        files = [
            file
            for spec in recipe.models().values()
            if isinstance(spec.source, HubFile) and not spec.needs_pull
            for file in model_files(spec)
        ]
        if not any(str(error).startswith(f"{file}:") for file in files):
            raise
        raise ModelFileError(f"{error}; {pull_command(recipe)} mends it") from None


def is_cached(spec: ModelSpec) -> bool:
    """Return whether a model's file is the one of its source in a cache of the hub."""
    source, path = spec.source, spec.lora or spec.file
    if not isinstance(source, HubFile) or spec.needs_pull:
        return False
    folder, inside = _in_snapshot(path) or (None, ())
    is_there = folder is not None and folder.name == folder_name(source.repo)
    return is_there and "/".join(inside) == source.file


def forget(paths: Iterable[Path]) -> int:
    """Remove files from the cache: each content that no other name leads to, and their names.

    Args:
        paths: files in snapshots, as recipes name them; what is none, or not there, is passed over.

    Returns the bytes that were freed.

    Raises OSError if something is there and cannot be removed.
    """
    freed = 0
    for path in map(Path, map(os.path.abspath, paths)):
        folder, inside = _in_snapshot(path) or (None, ())
        if folder is None or not os.path.lexists(path) or not _lies_in(path.parent, folder):
            continue
        content = path
        if path.is_symlink():
            content = Path(os.path.normpath(path.parent / os.readlink(path)))
        if content == path and not os.path.isfile(path):
            continue  # a directory, a pipe: nothing that a pull makes
        # The content goes first: a name that leads nowhere is known to be incomplete, and is
        # taken away by the next try; a content without a name would stay for ever.
        if content == path or (_is_blob(content, folder) and content not in _linked(folder, path)):
            status = os.lstat(content)
            content.unlink()
            freed += status.st_size * (status.st_nlink == 1)
        path.unlink(missing_ok=True)
        _tidy(folder, path, folder / "snapshots" / path.parts[-len(inside) - 1])
    return freed


def partial_files(spec: ModelSpec) -> dict[Path, Path]:
    """Return where what has come of a model lies until it is whole: place → its name then."""
    found = _in_snapshot(spec.file) if is_cached(spec) else None
    if found is None or spec.sha256 is None:
        return {}
    hashes = (spec.sha256,) if isinstance(spec.sha256, str) else spec.sha256
    blobs = found[0] / "blobs"
    names = zip(hashes, model_files(spec), strict=False)
    return {blobs / f"{sha256}.incomplete": file for sha256, file in names}


def forget_partials(partials: Mapping[Path, Path]) -> int:
    """Remove what has come of files that are not whole. Returns the bytes that were freed.

    Args:
        partials: as `partial_files` returns them; what is not there is passed over.

    Raises OSError if something is there and cannot be removed.
    """
    freed = 0
    for partial, name in partials.items():
        folder, inside = _in_snapshot(name) or (None, ())
        if folder is None or not _lies_in(partial.parent, folder):
            continue
        if partial.is_file() and not partial.is_symlink():
            freed += partial.stat().st_size
            partial.unlink()
        _tidy(folder, name, folder / "snapshots" / name.parts[-len(inside) - 1])
    return freed


def _in_snapshot(path: Path) -> tuple[Path, tuple[str, ...]] | None:
    """Return the repository's folder and the path in the repository; None if it is no such path."""
    path = Path(os.path.abspath(path))
    for depth, name in enumerate(path.parts[:-3]):
        below = path.parts[depth + 1 :]
        if _REPOSITORY.fullmatch(name) and below[0] == "snapshots" and COMMIT.fullmatch(below[1]):
            return Path(*path.parts[: depth + 1]), below[2:]
    return None


def _lies_in(directory: Path, folder: Path) -> bool:
    """Return whether no link below `folder` leads elsewhere; the folder itself may be one's own."""
    inside = directory.relative_to(folder)
    return os.path.realpath(directory) == os.path.join(os.path.realpath(folder), inside)


def _is_blob(blob: Path, folder: Path) -> bool:
    """Return whether a link's target is a content of this repository and nothing else."""
    is_below = blob.parent == folder / "blobs" and _lies_in(blob.parent, folder)
    return is_below and os.path.isfile(blob) and not blob.is_symlink()


def _linked(folder: Path, less: Path) -> set[Path]:
    """Return what the names in a repository's snapshots lead to, `less` one of them."""
    return {
        Path(os.path.normpath(path.parent / os.readlink(path)))
        for path in _walk(folder / "snapshots")
        if path.is_symlink() and path != less
    }


def _walk(directory: Path) -> Iterator[Path]:
    for place, _, names in os.walk(directory):
        yield from (Path(place, name) for name in names)


def _tidy(folder: Path, path: Path, snapshot: Path) -> None:
    """Remove the folders that are empty now, and the names of a commit of which nothing is left."""
    with contextlib.suppress(OSError):
        for directory in path.parents:
            directory.rmdir()
            if directory == snapshot:
                break
    if not snapshot.exists():
        for ref in _walk(folder / "refs"):
            with contextlib.suppress(OSError, ValueError):
                if not ref.is_symlink() and ref.read_text("ascii").strip() == snapshot.name:
                    ref.unlink()
    for empty in (folder / "refs", folder / "blobs", folder / "snapshots", folder):
        with contextlib.suppress(OSError):
            empty.rmdir()
