"""Files in a message: `@notes.txt` puts a text in, with its name.

It changes a message and shows nothing. A word counts if a file has its name; others stay words, as
addresses do.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import RequestError
from ..files.gguf_header import is_gguf
from ..files.plain_text import decode, read_regular, reason
from ..system import at_home

_MAX_BYTES = 1 << 20  # more than most contexts hold
_WORD = re.compile(r"""(?<!\S)@("[^"\n]+"|'[^'\n]+'|\S+)""")
_PATH = re.compile(r"[^@]*([/\\]|\.\w)[^@]*")
_AFTER = ",.;:!?)"  # may follow a name in a sentence


class Attached(NamedTuple):
    """A file that was put in."""

    name: str
    n_characters: int


def put_in(message: str) -> tuple[str, list[Attached]]:
    """Return `message` with the texts of the files that it names after an @, and which they are.

    Names with blanks stand in quotes; ~ is the home directory. The name stays where it was, and
    the texts follow the message, in fences.

    Raises:
        RequestError: such a file cannot be read, is too large or is not text.
    """
    texts: dict[str, str] = {}

    def named(word: re.Match[str]) -> str:
        name, after = _name(word[1])
        if not name:
            return word[0]
        if name not in texts:
            texts[name] = _read(name)
        return name + after

    message = _WORD.sub(named, message)
    blocks = [f"{name}:\n{_fenced(text)}" for name, text in texts.items()]
    attached = [Attached(name, len(text)) for name, text in texts.items()]
    return "\n\n".join([message, *blocks]), attached


def unmet(message: str) -> list[str]:
    """Return a line for each word after an @ that looks like a path and is put in by nobody."""
    told: dict[str, str] = {}
    for found in _WORD.finditer(message):
        if _name(found[1])[0]:
            continue
        word = found[1].strip("\"'").rstrip(_AFTER)
        if _is_directory(word):
            told[word] = f"{word} is a directory; @ takes a file"
        elif _PATH.fullmatch(word):
            told[word] = f"no file {word} here"
    return [f"{line}; @{word} is sent as text" for word, line in told.items()]


def _is_directory(name: str) -> bool:
    try:
        return bool(name) and at_home(name).is_dir()
    except (OSError, ValueError):
        return False


def _name(word: str) -> tuple[str, str]:
    """Return the name of the file that a word means, and what follows it; "" if it means none."""
    if word[0] in "\"'" and word[-1] == word[0] and len(word) > 2:
        return (word[1:-1], "") if _is_file(word[1:-1]) else ("", "")
    name = word
    while name and not _is_file(name):
        if name[-1] not in _AFTER:
            return "", ""
        name = name[:-1]
    return name, word[len(name) :]


def _is_file(name: str) -> bool:
    """Return whether something other than a directory has this name."""
    try:
        path = at_home(name)
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _read(name: str) -> str:
    path = at_home(name)
    try:
        if is_gguf(path):
            raise RequestError(f"{name} is a GGUF model, which a message cannot hold; @ takes text")
        return decode(read_regular(path, _MAX_BYTES))
    except UnicodeDecodeError:
        raise RequestError(f"{name} is not UTF-8 text; convert it, as with iconv") from None
    except OSError as error:
        raise RequestError(f"{name} cannot be put in ({reason(error)})") from None


def _fenced(text: str) -> str:
    """Return a text in a fence that is longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text.removesuffix(chr(10))}\n{fence}"
