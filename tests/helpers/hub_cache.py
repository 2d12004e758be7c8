"""The Hugging Face hub's cache on disk, as a pull leaves it, and recipes of what is in it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edge_eft.files.hub_file import HubFile
from edge_eft.files.recipe import Delta, ModelSpec, Recipe

COMMIT = "0123456789" * 4
OTHER_COMMIT = "a" * 40


def cached(
    cache: Path, repo: str, file: str, content: bytes, *, commit: str = COMMIT, links: bool = True
) -> Path:
    """Put a file into `cache`. Returns its name in the snapshot."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    path = folder / "snapshots" / commit / file
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "blobs").mkdir(exist_ok=True)
    if links:
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(blob, path.parent))
    else:
        path.write_bytes(content)
    return path


def pulled_spec(
    cache: Path, repo: str, content: bytes, *, file: str = "m.Q8_0.gguf", **options: object
) -> ModelSpec:
    """A model as `pull` leaves it in a recipe."""
    path = cached(cache, repo, file, content, **options)  # type: ignore[arg-type]
    digest = hashlib.sha256(content).hexdigest()
    return ModelSpec(path, digest, source=HubFile(repo, file, path.parts[-2], len(content)))


def recipe_of(name: str, base: ModelSpec, tuned: ModelSpec, reference: ModelSpec) -> Recipe:
    """A recipe with one delta, not saved yet."""
    return Recipe(name, "", "", 64, base, {"chat": Delta("chat", 1.0, tuned, reference)}, None)


def files_below(folder: Path) -> set[str]:
    """The files and links below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_symlink() or p.is_file()}
