"""A terminal on which a command runs, and what stood on its screen meanwhile and at the end."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

from helpers.cli_tools import command

_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """The lines that a terminal shows, without colours.

    It knows what displays use: ends of lines, carriage returns, and the sequences that erase a
    line, move the cursor up, hide it and show it; and it refuses what it does not know.
    """

    def __init__(self, columns):
        self.columns = columns
        self.lines, self.row, self.column = [""], 0, 0
        self.has_cursor = True
        self._rest = ""

    @property
    def text(self):
        """All lines, without white space at their ends."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")

    def feed(self, text):
        text, self._rest = self._rest + text, ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = _SEQUENCE.match(text, at)
                if found is None:
                    assert len(text) - at < 12, f"unknown: {text[at : at + 20]!r}"
                    self._rest = text[at:]
                    return
                self._control(*found.groups())
                at = found.end()
            else:
                self._put(text[at])
                at += 1

    def _control(self, numbers, letter):
        if letter == "K":
            self.lines[self.row] = "" if numbers == "2" else self.lines[self.row][: self.column]
        elif letter == "A":
            self.row -= int(numbers or 1)
        elif numbers == "?25":
            self.has_cursor = letter == "h"
        else:
            assert letter in "mhl", f"unknown: {numbers}{letter}"

    def _put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
        else:
            assert character.isprintable(), f"unknown: {character!r}"
            if self.column == self.columns:
                self.row, self.column = self.row + 1, 0
            self._grow()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1
        self._grow()

    def _grow(self):
        while len(self.lines) <= self.row:
            self.lines.append("")


class OnTerminal:
    """`edge-eft` on a terminal of its own.

    Args:
        stdout: a file to write stdout to.
        environment: more of it.
        setup: Python code to run before.

    Attributes:
        screen: as it is now.
        frames: every other content of the screen that was seen, in order.
        pid: of the process.
    """

    def __init__(self, *arguments, columns=100, stdout=None, environment=(), setup=""):
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
            os.environ.pop("NO_COLOR", None)
            os.environ.update({"TERM": "xterm-256color", **dict(environment)})
            os.execv(sys.executable, [*command(setup), *map(str, arguments)])
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.screen, self.frames, self.raw = Screen(columns), [], b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def read(self, until=None, seconds=60):
        """Look on until a pattern stands on the screen, or else until the command's end."""
        end = time.monotonic() + seconds
        while not (until and re.search(until, self.screen.text)):
            left = end - time.monotonic()
            ready = left > 0 and select.select([self._terminal], [], [], left)[0]
            assert ready, f"after {seconds} s: {self.screen.text}"
            try:
                data = os.read(self._terminal, 1 << 16)
            except OSError:  # the end of a terminal on Linux
                data = b""
            if not data:
                assert until is None, f"ended before {until!r}: {self.screen.text}"
                return self
            self.raw += data
            for picture in re.split("(?=\r\x1b)", self._decoder.decode(data)):
                self.screen.feed(picture)
                if not self.frames or self.frames[-1] != self.screen.text:
                    self.frames.append(self.screen.text)
        return self

    def press(self, keys):
        os.write(self._terminal, keys.encode())

    def status(self):
        """The exit status, once all was read."""
        self.read()
        _, status = os.waitpid(self.pid, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)

    def saw(self, pattern):
        """Whether a screen that was seen has the pattern."""
        return any(re.search(pattern, frame) for frame in self.frames)
