"""Where a model lies on the Hugging Face hub, as a recipe states it. Plain data: nothing is asked.

Names come from strangers' recipes and from the hub itself, and become paths on this machine; what
could lead anywhere else than below its repository's directory is refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import RecipeError
from ..validate import checked_init, kind, whole

# "exact": its size, hash or revision was seen in a public file; "named": repository and file name
# were; "guessed": both follow the habit of whoever quantised it. A pull settles it.
Confidence = Literal["exact", "named", "guessed"]

MAX_BYTES = 1 << 50
COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\\:*?"<>|\ud800-\udfff]')
# Names that Windows gives to devices, whatever follows the dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$) *(\..*)?", re.I)


@checked_init(RecipeError)
@dataclass(frozen=True)
class HubFile:
    """One model on the hub.

    Attributes:
        repo: "owner/name".
        file: its path in the repository; of a split model the first part's.
        revision: the commit (40 hexadecimal digits); None: not pinned, the newest is meant.
        size: bytes of all its parts; approximate unless `confidence` is "exact" or None.
        gated: whether its licence has to be accepted on the hub before it can be fetched.
        confidence: how sure a catalogue is of it; None once a pull has verified it.
    """

    repo: str
    file: str
    revision: str | None = None
    size: int | None = None
    gated: bool = False
    confidence: Confidence | None = None

    def __post_init__(self) -> None:
        check_repo(self.repo)
        check_file_name(self.file)
        kind("revision", self.revision, str | None, "a commit", RecipeError)
        if self.revision is not None and not COMMIT.fullmatch(self.revision):
            raise RecipeError(
                f"revision is {self.revision!r:.60}, not a commit of 40 hexadecimal digits"
            )
        if self.size is not None:
            whole("size", self.size, 1, MAX_BYTES, error=RecipeError)
        kind("gated", self.gated, bool, "true or false", RecipeError)
        if self.confidence not in (None, *get_args(Confidence)):
            known = ", ".join(get_args(Confidence))
            raise RecipeError(f"confidence is {self.confidence!r:.40}; it may be {known}")

    def __str__(self) -> str:
        return f"{self.repo}/{self.file}"


def check_repo(repo: str) -> None:
    """Raise RecipeError if `repo` is not the name of a repository, "owner/name"."""
    kind("repo", repo, str, "a text", RecipeError)
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or repo.endswith((".", ".git")):
        raise RecipeError(
            f"repo is {repo!r:.120}, not the name of a repository on the hub; write OWNER/NAME"
        )


def check_file_name(name: str) -> None:
    """Raise RecipeError unless `name` is a path that stays below a repository, and ends in .gguf.

    It has to mean one file on every system: no device of Windows', no character that some have
    not, no part that ends with a dot or a space, which Windows drops.
    """
    kind("file", name, str, "a text", RecipeError)
    parts = name.split("/")
    safe = not _FORBIDDEN.search(name) and all(
        part and part[0] not in " ~" and part[-1] not in " ." and len(part.encode()) <= 255
        for part in parts
    )
    if not safe or len(name) > 1024 or any(map(is_device_name, parts)):
        raise RecipeError(f"file is {name!r:.120}, not a path within a repository")
    if not name.lower().endswith(".gguf"):
        raise RecipeError(f"file is {name!r:.120}, not the path of a .gguf file in a repository")


def is_device_name(name: str) -> bool:
    """Return whether Windows takes a file of this name for a device, such as `nul.gguf`."""
    return bool(_DEVICE.fullmatch(name))
