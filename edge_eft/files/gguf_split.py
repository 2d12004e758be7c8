"""The names of the parts of a split model: `NAME-00001-of-00003.gguf` and so on.

By llama.cpp's own rule (llama_split_path in llama.cpp), which looks beside the path that it is
given: a link, as in a hub cache, has its siblings beside itself and not beside its target. Names
only; what is in the files is `gguf_check`'s question.
"""

from __future__ import annotations

import re
from pathlib import Path

_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def part_paths(path: Path) -> tuple[Path, ...]:
    """Return the paths of all parts of the model that `path` names by its first part.

    Anything that is not the name of a first part stands for itself alone.
    """
    match = _PART.fullmatch(path.name)
    if not match or int(match["number"]) != 1:
        return (path,)
    return tuple(
        path.with_name(f"{match['stem']}-{number:05d}-of-{match['count']}.gguf")
        for number in range(1, int(match["count"]) + 1)
    )


def first_part(path: Path) -> str:
    """Return the file name of the first part, for a message; "" if `path` is not named as one."""
    match = _PART.fullmatch(path.name)
    return f"{match['stem']}-00001-of-{match['count']}.gguf" if match else ""


def model_stem(path: Path) -> str:
    """Return what a model's file is called, without the number of its part and its suffix."""
    match = _PART.fullmatch(path.name)
    return match["stem"] if match else path.stem
