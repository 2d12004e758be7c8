"""What a terminal is shown: text without control characters, in lines and columns that fit.

Text of models and files goes through `ControlFilter` wherever it reaches a terminal or a log.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import click

dim = partial(click.style, dim=True)

# C0, DEL and C1 except \n and \t; the bidirectional embeddings, overrides and isolates, which can
# make text read as what it is not (CVE-2021-42574); surrogates, which no terminal can be sent.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ESC, _CSI = "\x1b", "\x9b"
_STRING_AFTER_ESC = "PX]^_"  # DCS, SOS, OSC, PM, APC; their C1 forms next (ECMA-48, 5.3)
_STRING_C1 = "\x90\x98\x9d\x9e\x9f"


class ControlFilter:
    """Drops control characters and terminal sequences from text that comes in chunks.

    Without their introducers the remains of a sequence are harmless, but they are not text either,
    so whole sequences go: ESC and its final character, CSI with its parameters, and the strings
    OSC, DCS, SOS, PM and APC up to their end (BEL, ST) or the end of the line, so that a lone
    introducer does not swallow the rest of a reply.
    """

    def __init__(self) -> None:
        self._state = "text"

    def filter(self, text: str) -> str:
        """Return the harmless part of `text`, the next chunk of the stream."""
        if self._state == "text" and not _UNSAFE.search(text):
            return text
        return "".join(c for c in text if self._keep(c))

    def _keep(self, c: str) -> bool:
        """Move on by one character. Returns whether it is text."""
        state, self._state = self._state, "text"
        if c == _ESC:
            self._state = "string-esc" if state.startswith("string") else "escape"
        elif c == _CSI:
            self._state = "csi"
        elif c in _STRING_C1:
            self._state = "string"
        elif state == "string-esc" and c == "\\":
            pass
        elif state.startswith("string") and c not in "\n\x07\x9c":
            self._state = "string"
        elif state == "escape" and c == "[":
            self._state = "csi"
        elif state == "escape" and c in _STRING_AFTER_ESC:
            self._state = "string"
        elif state == "escape" and " " <= c <= "/":
            self._state = "escape"
        elif state == "csi" and " " <= c <= "?":
            self._state = "csi"
        elif state in ("escape", "csi") and " " <= c <= "~":
            pass  # the final character of the sequence
        else:
            return not _UNSAFE.match(c)
        return False


def start_logging(verbose: bool) -> None:
    """Warnings, or more, to stderr, one line each and harmless."""

    class OneLine(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return one_line(f"edge-eft: {record.getMessage()}")

    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    level = logging.INFO if verbose else logging.WARNING
    handler.setLevel(level)  # loggers below may let more through, to other handlers
    logger = logging.getLogger("edge_eft")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)


def one_line(text: str) -> str:
    """Text that may hold anything, as one harmless line."""
    return " ".join(ControlFilter().filter(text).split())


def talk(line: str) -> None:
    """Say one dim line on stderr."""
    click.echo(dim(ControlFilter().filter(line)), err=True)


def terminal_width() -> int:
    """Return the columns to use: the terminal's, and no line longer than 100."""
    return max(40, min(100, shutil.get_terminal_size((100, 24)).columns))


def supports(characters: str) -> bool:
    """Return whether stdout can show these characters."""
    try:
        characters.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def tidy(text: str) -> str:
    """Return a model's text without control characters and outer white space."""
    return ControlFilter().filter(text).strip()


def wrap(text: str, width: int, max_lines: int | None = None) -> list[str]:
    """Return lines of at most `width` columns; what exceeds `max_lines` ends in an ellipsis."""
    from prompt_toolkit.utils import get_cwidth

    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.findall(r"\S+|\s+", paragraph.expandtabs(4)):
            for piece in [word] if get_cwidth(word) <= width else list(word):
                if get_cwidth(line + piece) > width:
                    lines.append(line.rstrip())
                    line = ""
                line += piece if line or not piece.isspace() else ""
        lines.append(line.rstrip())
    if max_lines and len(lines) > max_lines:
        last = lines[max_lines - 1]
        while get_cwidth(last) > width - 2:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], f"{last.rstrip()} …"]
    return lines


def row(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """Return one row of a table: cells of several lines (styled or not) in columns."""
    from prompt_toolkit.utils import get_cwidth

    rows = []
    for line in zip_longest(*cells, fillvalue=""):
        padded = (
            text + " " * (width - get_cwidth(click.unstyle(text)))
            for text, width in zip(line, widths, strict=True)
        )
        rows.append("  ".join(padded).rstrip())
    return "\n".join(rows)


def rule(widths: Sequence[int]) -> str:
    """Return the line below a table's heading."""
    return dim("─" * (sum(widths) + 2 * (len(widths) - 1)))


def to_json(content: Any) -> str:
    """Return one line of ASCII, so that nothing in it can harm a terminal."""
    return json.dumps(content)
