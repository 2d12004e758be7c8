"""One line of `edge-eft doctor`: what was looked at, what was found, and what to do about it.

What `doctor` prints is pasted into bug reports. So our own words name no path, user or host, and a
stranger's (an error of the loader, a recipe's name) go through `foreign`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK, NOTE, WARNING = "ok", "note", "warning"  # works; could be better; does not work

# An absolute path, of which the last name is kept: after a letter, / is "per", and URLs stay.
_PATH = re.compile(
    r"(?<![\w.~])(?<!:/)(?!//)(?:[A-Za-z]:)?(?:[\\/][^\\/\s'\":;,()]+)*[\\/]([^\\/\s'\":;,()]+)"
)


@dataclass(frozen=True)
class Finding:
    """What `doctor` says of one thing.

    Attributes:
        name: the thing, in a word or two.
        value: what was found.
        verdict: OK, NOTE (it works, and could do better) or WARNING (it does not work).
        advice: what to do; "" if there is nothing to do.
        command: what to type for it; "" if that is more than a command.
        data: the figures behind it, for programs.
    """

    name: str
    value: str
    verdict: str = OK
    advice: str = ""
    command: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


def foreign(text: str) -> str:
    """Return a stranger's text without what names this person or machine: paths, user, host."""
    for home in filter(None, (os.path.expanduser("~"), os.environ.get("HOME"))):
        if len(home) > 1 and home != "~":
            text = text.replace(
                home, "/~"
            )  # it may have blanks; the directories below it go as well
    text = _PATH.sub(r"\1", text)
    for name, stand_in in _private_names().items():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", stand_in, text, flags=re.IGNORECASE)
    return text


def _private_names() -> dict[str, str]:
    names = dict.fromkeys((Path(os.path.expanduser("~")).name,), "USER")
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        names[os.environ.get(variable, "")] = "USER"
    with contextlib.suppress(OSError, KeyError, ImportError):  # an account without a name
        names[getpass.getuser()] = "USER"
    host = platform.node()
    names |= {host: "HOST", host.partition(".")[0]: "HOST"}
    return {name: stand_in for name, stand_in in names.items() if len(name) > 1}
