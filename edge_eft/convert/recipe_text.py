"""The recipe that a conversion writes, as TOML text, and the provenance that it states."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileEntry:
    """One model file of the recipe; `lora` if it is an adapter on the delta's reference."""

    path: Path
    sha256: str
    source: str
    prompt: str | None = None
    lora: bool = False


@dataclass(frozen=True)
class RecipeContent:
    """All that goes into the recipe; `deltas` are (name, weight, tuned, reference)."""

    name: str
    description: str
    license: str
    n_ctx: int | None
    base: FileEntry | None
    deltas: tuple[tuple[str, float, FileEntry, FileEntry], ...]
    provenance: Mapping[str, str]


def recipe_toml(content: RecipeContent, directory: Path) -> str:
    """Return the recipe as TOML; files below `directory`, its own, get relative paths."""
    lines = ["# Written by edge-eft convert.", f"name = {_quoted(content.name)}"]
    if content.description:
        lines.append(f"description = {_quoted(content.description)}")
    if content.license:
        lines.append(f"license = {_quoted(content.license)}")
    if content.n_ctx:
        lines.append(f"n_ctx = {content.n_ctx}")
    if content.base:
        lines += ["", "[base]", *_pairs(_entry(content.base, directory))]
    else:
        lines += ["", "# No base yet: edge-eft run THIS_FILE --base large.gguf"]
    for name, weight, tuned, reference in content.deltas:
        lines += ["", f"[delta.{_quoted(name)}]", f"weight = {weight}"]
        for role, entry in (("tuned", tuned), ("reference", reference)):
            inline = ", ".join(_pairs(_entry(entry, directory)))
            lines.append(f"{role} = {{ {inline} }}")
    lines += ["", "[provenance]", *_pairs(content.provenance.items())]
    return "\n".join(lines) + "\n"


def _entry(entry: FileEntry, directory: Path) -> Iterable[tuple[str, str]]:
    yield "lora" if entry.lora else "file", relative(entry.path, directory)
    if entry.lora:
        yield "on", "reference"
    yield "sha256", entry.sha256
    if entry.prompt is not None:
        yield "prompt", entry.prompt
    yield "source", entry.source


def relative(path: Path, directory: Path) -> str:
    """Return `path` as a recipe in `directory` names it: relative if below, else absolute."""
    path, directory = Path(os.path.abspath(path)), Path(os.path.abspath(directory))
    inside = path.is_relative_to(directory)
    return path.relative_to(directory).as_posix() if inside else str(path)


def _pairs(items: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{key} = {_quoted(text)}" for key, text in items]


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'


def versions(*packages: str) -> str:
    """Return `name version` of the packages that are installed, for the record."""
    known = []
    for package in packages:
        try:
            known.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(known)
