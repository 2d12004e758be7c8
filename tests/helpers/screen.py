"""A terminal's screen, kept in memory: it takes what a program writes, and says what is shown."""

import io
import os
import re
from contextlib import contextmanager
from unittest import mock

from rich.cells import cell_len

_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|.", re.DOTALL)
_BEGUN = re.compile(r"\x1b(?:\[\??[\d;]*)?\Z")  # a sequence whose end comes with the next chunk


class Screen(io.StringIO):
    """A stdout with `columns` and `rows`; text that is too wide goes on in the next row.

    It knows the sequences that replies and displays are drawn with, and refuses all others. Emoji
    that are joined take the columns of the first.

    Attributes:
        drawn: how often something was written.
        moves: how often the cursor went up.
        has_cursor: whether the cursor is visible.
    """

    encoding = "utf-8"

    def __init__(self, columns=100, rows=24):
        super().__init__()
        self.columns, self.rows = columns, rows
        self.drawn = self.moves = 0
        self.has_cursor = True
        self._lines, self._at, self._column, self._wraps = [[]], 0, 0, False
        self._joins, self._rest = False, ""

    def isatty(self):
        return True

    def write(self, data):
        self.drawn += 1
        n, data = len(data), self._rest + data
        begun = _BEGUN.search(data)
        data, self._rest = (data[: begun.start()], begun[0]) if begun else (data, "")
        for match in _TOKEN.finditer(data):
            self._take(match[0], match[1], match[2])
        return n

    def text(self):
        """What was shown, with what has scrolled away; blanks at the ends of rows say nothing."""
        rows = ["".join(line).rstrip() for line in self._lines]
        while len(rows) > self._at + 1 and not rows[-1]:
            rows.pop()
        return "\n".join(rows)

    def resize(self, columns):
        """Become narrower or wider: rows that are too wide are wrapped, as most terminals do."""
        assert self._at == len(self._lines) - 1
        os.environ["COLUMNS"] = str(columns)  # `shown_on` puts it back
        rows = [
            line[i : i + columns]
            for line in self._lines
            for i in range(0, max(len(line), 1), columns)
        ]
        self.columns, self._lines, self._at = columns, rows, len(rows) - 1
        self._column = min(len(rows[-1]), columns - 1)
        self._wraps = len(rows[-1]) == columns

    def _take(self, char, arguments, sequence):
        if sequence == "A":
            self.moves += 1
            top = max(0, len(self._lines) - self.rows)
            self._at, self._wraps = max(top, self._at - int(arguments or 1)), False
        elif sequence == "K":
            assert arguments == "2"
            self._lines[self._at] = []
        elif arguments == "?25":
            self.has_cursor = sequence == "h"
        elif sequence:
            known = sequence == "m" or arguments == "?2004"  # bracketed paste
            assert known, f"{char!r} is not known here"
        elif char == "\r":
            self._column, self._wraps = 0, False
        elif char == "\n":
            self._down()
        else:
            assert char >= " ", f"{char!r} is not known here"
            self._put(char)

    def _down(self):
        self._at, self._column, self._wraps = self._at + 1, 0, False
        if self._at == len(self._lines):
            self._lines.append([])

    def _put(self, char):
        line = self._lines[self._at]
        if not (width := 0 if self._joins else cell_len(char)):
            self._joins = char == "\u200d"
            line[-1 if not self._column or self._wraps else self._column - 1] += char
            return
        if self._wraps or self._column + width > self.columns:
            self._down()
            line = self._lines[self._at]
        line += [" "] * (self._column - len(line))
        line[self._column : self._column + width] = [char, ""][:width]
        self._wraps = self._column + width == self.columns
        self._column = min(self._column + width, self.columns - 1)


@contextmanager
def shown_on(screen):
    """Let stdout be this terminal."""
    size = {"COLUMNS": str(screen.columns), "LINES": str(screen.rows)}
    kind = {"TERM": "xterm-256color", "NO_COLOR": ""}
    with mock.patch.dict("os.environ", {**size, **kind}), mock.patch("sys.stdout", screen):
        yield screen
