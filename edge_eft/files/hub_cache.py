"""The cache that programs share for files of the Hugging Face hub: names and places.

    CACHE/models--OWNER--NAME/blobs/DIGEST                  the content, under its sha256
                              blobs/DIGEST.incomplete       as much of it as has come
                              snapshots/COMMIT/PATH         a link to the blob, which people name
                              refs/main                     the commit of a branch

huggingface_hub laid it out so; here is no network and no huggingface_hub. What a hub says of itself
(commits, digests) becomes part of a path only after it was checked, as its names are; nothing is
written that is not below the folder of its repository.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import HubError, RecipeError
from ..system import at_home
from .hub_file import COMMIT, check_file_name, check_repo
from .plain_text import reason

_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")  # a sha256, or the git hash of a small file


@dataclass(frozen=True)
class Place:
    """Where one file of the hub lies in the cache.

    Attributes:
        folder: of the repository.
        blob: the content. It has this name only once it is whole and compared with its digest.
        partial: as much of it as has come.
        snapshot: the name to use, a link to the blob, or the file itself where links are not to
            be had.
        lock: held while the blob is written, by huggingface_hub as well.
    """

    folder: Path
    blob: Path
    partial: Path
    snapshot: Path
    lock: Path


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return where the cache is, by huggingface_hub's variables; a test compares the two.

    It is not asked itself: `doctor` works where it is broken, and `match` without it.

    Args:
        environment: in place of the process's.

    Raises HubError if no home directory is known.
    """
    env = os.environ if environment is None else environment
    user = env.get("USERPROFILE" if os.name == "nt" else "HOME") or "~"
    caches = env.get("XDG_CACHE_HOME") or os.path.join(user, ".cache")
    home = env.get("HF_HOME") or os.path.join(caches, "huggingface")
    named = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    try:
        place = at_home(os.path.expandvars(named or os.path.join(home, "hub")))
        return Path(os.path.abspath(place))
    except OSError as error:
        raise HubError(f"{reason(error)}; HF_HOME names a place for models") from None


def check_commit(commit: object) -> str:
    """Return `commit` if it is a revision's full hash, else raise HubError."""
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise HubError(f"{commit!r:.60} is not a commit, 40 hexadecimal digits")
    return commit


def check_digest(digest: object) -> str:
    """Return `digest` if it is a sha256 or a git hash, else raise HubError."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise HubError(f"{digest!r:.80} is not a sha256")
    return digest


def place(cache: Path, repo: str, commit: str, file: str, digest: str) -> Place:
    """Return where a file lies; nothing is looked at on the disk.

    Raises HubError or RecipeError if one of the names cannot be one.
    """
    check_file_name(file)
    folder = cache / folder_name(repo)
    blob = folder / "blobs" / check_digest(digest)
    return Place(
        folder=folder,
        blob=blob,
        partial=blob.with_name(blob.name + ".incomplete"),
        snapshot=folder / "snapshots" / check_commit(commit) / file,
        lock=cache / ".locks" / folder.name / f"{digest}.lock",
    )


def prepare(where: Place) -> None:
    """Make the folders that a download writes to.

    Raises HubError if a link leads out of the repository's folder, or they cannot be made.
    """
    root = os.path.realpath(where.folder)
    for folder in (where.blob.parent, where.snapshot.parent):
        # Asked before it is made: makedirs follows links, too.
        if not _inside(folder, root):
            raise HubError(f"{folder}: a link leads out of the cache; remove it and pull again")
    for folder in (where.blob.parent, where.snapshot.parent, where.lock.parent):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise HubError(
                f"{folder}: cannot be made ({reason(error)}); HF_HOME names another place"
            ) from None


def link(where: Place) -> Path:
    """Let the snapshot's name lead to the blob, which is whole. Returns that name.

    The link is put in place at once, so that it is never half there.
    """
    wanted = os.path.relpath(where.blob, where.snapshot.parent)
    if os.path.islink(where.snapshot) and os.readlink(where.snapshot) == wanted:
        return where.snapshot
    made = where.snapshot
    if os.path.lexists(made):  # something else, which is replaced
        made = made.with_name(f".{where.blob.name[:16]}.{os.getpid()}.tmp")
    try:
        try:
            os.symlink(wanted, made)
        except (OSError, NotImplementedError):  # Windows without the right to make links
            os.replace(where.blob, where.snapshot)
        else:
            os.replace(made, where.snapshot)
    except OSError as error:
        raise HubError(f"{where.snapshot}: cannot be made ({reason(error)})") from None
    return where.snapshot


def main_commit(cache: Path, repo: str) -> str | None:
    """Return the commit that the cache knows as `main`, None if it knows none."""
    try:
        commit = (cache / folder_name(repo) / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def files_of(cache: Path, repo: str, commit: str) -> dict[str, Path]:
    """Return the GGUF files that the cache has of a commit: path in the repository → path here."""
    root = cache / folder_name(repo) / "snapshots" / check_commit(commit)
    found = {}
    for folder, _, files in os.walk(root):
        for path in (Path(folder, name) for name in files):
            name = path.relative_to(root).as_posix()
            with contextlib.suppress(RecipeError):
                check_file_name(name)
                if path.is_file():
                    found[name] = path
    return found


def digest_of(path: Path) -> str | None:
    """Return the digest that the cache has a file under, None if it is no link to a blob."""
    name = os.path.basename(os.path.realpath(path))
    return name if path.is_symlink() and _DIGEST.fullmatch(name) else None


def folder_name(repo: str) -> str:
    """Return what the cache calls the folder of a repository, or raise RecipeError."""
    check_repo(repo)
    return f"models--{repo.replace('/', '--')}"


def _inside(path: Path, root: str) -> bool:
    """Return whether `path` is below `root`, a real path, with all links followed."""
    return Path(os.path.realpath(path)).is_relative_to(root)
