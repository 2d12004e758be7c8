"""The keys of `--json`: those that docs/cli.md has in a command's table, and those of an object."""

import re
from functools import cache

from .documents import ROOT


@cache
def documented(command):
    """The keys in the table of a command, each as the tuple of its parts."""
    text = (ROOT / "docs/cli.md").read_text("utf-8")
    part = re.search(rf"^### {command}\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", part[1], re.MULTILINE)
    return {tuple(key.split(".")) for row in rows for key in re.findall(r"`([^`]+)`", row)}


def _real(value, at=()):
    """The keys of an object and of those in it; what is in a list counts as the list's.

    Of an empty list it is not known whether objects are in it: ... stands for their keys.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _real(inner, (*at, key))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for each in value:
            yield from _real(each, at)
    else:
        yield (*at, ...) if value == [] else at


def _matches(pattern, key):
    if key[-1] is ...:
        key = key[:-1]
        pattern = pattern[: len(key)]
    return len(pattern) == len(key) and all(
        word == part or word.isupper() for word, part in zip(pattern, key, strict=True)
    )


def unseen_keys(command, *objects):
    """The documented keys that no object has; a key that is not documented fails."""
    keys = {key for each in objects for key in _real(each) if key}
    patterns = documented(command)
    unknown = [key for key in keys if not any(_matches(each, key) for each in patterns)]
    assert not unknown, f"docs/cli.md does not have {unknown}"
    unseen = [each for each in patterns if not any(_matches(each, key) for key in keys)]
    return {".".join(each) for each in unseen}
