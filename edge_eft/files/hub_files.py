"""Which files of a repository on the hub make a model, and which of them is meant.

Names and sizes only, as the hub states them: no network, no disk. A model is named by its file, by
its quantisation, or not at all where the repository or custom leaves one choice.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import HubError
from ..system import byte_size
from .gguf_split import first_part, part_paths
from .model_names import quantisation

# Of a file where none is named: the small pair's rounding errors enter at full weight, and a base
# of this kind is what most people run.
PAIR_KINDS = ("Q8_0", "F16", "BF16", "F32")
BASE_KINDS = ("Q4_K_M", "Q4_0", "Q5_K_M", "Q6_K", "Q8_0")
_NO_MODEL = re.compile(r"(?i)(?:^|[-._/])(?:mmproj|imatrix)")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_SHOWN = 12  # files in a message


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository: its path there, bytes, and digest (a sha256, or a git hash)."""

    path: str
    size: int
    digest: str

    @property
    def sha256(self) -> str | None:
        """The sha256 that the hub states; small files outside of its large storage have none."""
        return self.digest if len(self.digest) == 64 else None


@dataclass(frozen=True)
class Repository:
    """A repository at one commit: its GGUF files by path, its licence, and whether it is gated."""

    repo: str
    commit: str
    files: Mapping[str, RemoteFile]
    licence: str = ""
    gated: bool = False

    def models(self) -> dict[str, tuple[RemoteFile, ...]]:
        """Return the models: path of the file, or of the first part → all its parts, all there."""
        found = {}
        for name, file in self.files.items():
            part = _PART.search(name)
            # What lacks parts by their number alone is not looked through: there may be many such.
            lacks = part and (int(part[1]) != 1 or int(part[2]) > len(self.files))
            if _NO_MODEL.search(name) or lacks:
                continue
            parts = [self.files.get(part.as_posix()) for part in part_paths(Path(name))]
            if None not in parts:
                found[file.path] = tuple(part for part in parts if part)
        return found


def choose(
    repository: Repository, wanted: str, usual: Sequence[str] = (), *, guessed: bool = False
) -> tuple[RemoteFile, ...]:
    """Return the parts of the model that is meant.

    Args:
        wanted: a file's path or name, a quantisation ("Q8_0", in any case), or "".
        usual: quantisations to take, the first that is there, where `wanted` is "".
        guessed: `wanted` is a file's name that nobody has seen; if it is not there, another file
            of the quantisation in its name is taken.

    Raises HubError, with the files that there are, the nearest first, if none or several fit.
    """
    models = repository.models()
    if not models:
        lacks = _lacking(repository)
        if lacks:
            raise HubError(
                f"{repository.repo} has a model in parts, and lacks {lacks}; name another"
            )
        raise HubError(f"{repository.repo} has no GGUF model; name a repository with GGUF files")
    named = wanted.lower()
    is_file = named.endswith(".gguf")
    if wanted in models:
        return models[wanted]
    if is_file:
        found = [name for name in models if name.lower() in (named, named.rpartition("/")[2])]
        found = found or [name for name in models if name.lower().endswith("/" + named)]
        if not found and guessed:
            found = _of_kind(models, quantisation(wanted))
    elif wanted:
        found = _of_kind(models, wanted)
    else:
        found = list(models) if len(models) == 1 else []
        for kind in usual:
            found = found or _of_kind(models, kind)
    if len(found) == 1:
        return models[found[0]]
    seen = f"has no {wanted!r:.120}" if wanted else "has several models, and none is the usual one"
    if found:
        seen = f"has {len(found)} files for {wanted or quantisation(found[0])!r:.120}"
    raise HubError(
        f"{repository.repo} {seen}; name one of its files: {listing(models, near=wanted)}"
    )


def _lacking(repository: Repository) -> str:
    """Return the first part that a split model of a repository has not, "" if there is none."""
    for path in map(Path, sorted(repository.files)):
        for part in part_paths(path.with_name(first_part(path) or path.name)):
            if part.as_posix() not in repository.files:
                return part.as_posix()
    return ""


def _of_kind(models: Iterable[str], kind: str) -> list[str]:
    """Return the models of a quantisation, by its whole name if any has that, else without UD-."""
    kind = kind.upper()
    same = [name for name in models if kind and quantisation(name) == kind]
    return same or [name for name in models if kind and quantisation(name) == f"UD-{kind}"]


def listing(models: Mapping[str, tuple[RemoteFile, ...]], *, near: str = "") -> str:
    """Return models with their sizes for a message, those with a name like `near` first."""
    likeness = {
        name: difflib.SequenceMatcher(None, name.lower(), near.lower()).ratio() if near else 0.0
        for name in models
    }
    order = sorted(models, key=lambda name: (-likeness[name], name))
    shown = [f"{name} ({byte_size(size_of(models[name]))})" for name in order[:_SHOWN]]
    more = f" and {len(order) - _SHOWN} more" if len(order) > _SHOWN else ""
    return ", ".join(shown) + more


def size_of(parts: Iterable[RemoteFile]) -> int:
    """Return the bytes of all parts."""
    return sum(part.size for part in parts)


def smaller(repository: Repository, parts: tuple[RemoteFile, ...], at_most: int) -> str:
    """Return the largest other quantisation that takes `at_most` bytes, "" if there is none."""
    sizes = {
        quantisation(name): size_of(other)
        for name, other in repository.models().items()
        if quantisation(name) and other != parts
    }
    fitting = [kind for kind, size in sizes.items() if size <= at_most]
    return max(fitting, key=lambda kind: sizes[kind], default="")
