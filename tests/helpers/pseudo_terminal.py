"""Pseudo-terminals: one that a command runs on, and one for what this process prints."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import threading
import time

from helpers.cli_tools import command
from helpers.screen import Screen


class OnTerminal:
    """`edge-eft` on a terminal of its own.

    Args:
        stdout: a file to write stdout to.
        environment: more of it.
        setup: Python code to run before.

    Attributes:
        screen: as it is now.
        frames: every other content of the screen that was seen, in order.
        raw: the bytes that came.
        pid: of the process.
    """

    def __init__(self, *arguments, columns=100, stdout=None, environment=(), setup=""):
        self.pid, self._terminal = pty.fork()
        if not self.pid:
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT), 1)
            # Without the size of another terminal: readline puts one where os.environ has none.
            own = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
            own |= {"TERM": "xterm-256color", **dict(environment)}
            os.execve(sys.executable, [*command(setup), *map(str, arguments)], own)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.screen, self.frames, self.raw = Screen(columns), [], b""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def text(self):
        """What the screen shows, without the end of its last line."""
        return self.screen.text().rstrip("\n")

    def read(self, until=None, seconds=60):
        """Look on until a pattern stands on the screen, or else until the command's end."""
        end = time.monotonic() + seconds
        while not (until and re.search(until, self.text())):
            left = end - time.monotonic()
            ready = left > 0 and select.select([self._terminal], [], [], left)[0]
            assert ready, f"after {seconds} s: {self.text()}"
            try:
                data = os.read(self._terminal, 1 << 16)
            except OSError:  # the end of a terminal on Linux
                data = b""
            if not data:
                assert until is None, f"ended before {until!r}: {self.text()}"
                return self
            self.raw += data
            for picture in re.split("(?=\r\x1b)", self._decoder.decode(data)):
                self.screen.write(picture)
                if not self.frames or self.frames[-1] != self.text():
                    self.frames.append(self.text())
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


class OwnTerminal:
    """A terminal for this process: `out` and `err` are in place of its stdout and stderr.

    Attributes:
        data: the bytes that have come so far.
    """

    def __init__(self):
        self._master, slave = pty.openpty()
        self.out = os.fdopen(slave, "w", encoding="utf-8")
        self.err = os.fdopen(os.dup(slave), "w", encoding="utf-8")
        self.data = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with contextlib.suppress(OSError):  # Linux says so when the other end is closed
            while chunk := os.read(self._master, 65536):
                self.data += chunk

    def text(self):
        """What came, with its sequences, after the end of all output; line ends are \\n."""
        self.out.close()
        self.err.close()
        self._reader.join(30)
        os.close(self._master)
        return self.data.decode().replace("\r\n", "\n")
