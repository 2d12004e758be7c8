"""Pseudo-terminals: one for a program that a test types to, one for what this process prints."""

import contextlib
import os
import pty
import re
import select
import sys
import threading
import time

import pytest


class Terminal:
    """The chat, or another program, in a pseudo-terminal."""

    def __init__(self, arguments, environment, program=(sys.executable, "-m", "edge_eft")):
        self.screen, self.seen = "", 0
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(program[0], [*program, *arguments], environment)

    def wait_for(self, pattern, seconds=40):
        """Read until the pattern appears behind what was waited for before."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.screen[self.seen :], re.DOTALL)):
            assert time.monotonic() < end, self.screen
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.screen += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:  # it has ended
                    pytest.fail(f"exit status {self.exit_status()} after {self.screen}")
        self.seen += found.end()

    def type(self, text):
        os.write(self.fd, text.encode())

    def exit_status(self):
        try:
            while data := os.read(self.fd, 65536):
                self.screen += data.decode("utf-8", "replace")
        except OSError:  # Linux says so when the other end is closed
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Screen:
    """stdout and stderr of this process on a pseudo-terminal."""

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
        """What came, after the end of all output; a terminal's line ends are its own."""
        self.out.close()
        self.err.close()
        self._reader.join(30)
        os.close(self._master)
        return self.data.decode().replace("\r\n", "\n")
