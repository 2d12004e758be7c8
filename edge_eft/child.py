"""A child process: Python with pipes, whose end is known and whose last words are kept.

Its stdin is a pipe that closes when this process dies, however it dies; every child of ours watches
it and goes then. What it prints to stderr is a stranger's text: it is handed on as it came, and
whoever shows it filters it. What is said over stdin and stdout is the caller's business. This
module imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

_PACKAGE_ROOT = str(Path(__file__).parents[1])


def environment() -> dict[str, str]:
    """Return this process's environment, for children that import this package."""
    path = [_PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "GGML_NO_BACKTRACE": "1"}


class Child:
    """A Python process with pipes, whose last lines on stderr are kept.

    Args:
        arguments: what follows `python`: a script or `-m MODULE`, and its arguments.
        environment: all of its environment.
        on_stderr: called with each line of its stderr that is not blank, on a thread.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_stderr: Callable[[str], None] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._on_stderr = on_stderr
        self._errors: deque[str] = deque(maxlen=40)
        self._reader = threading.Thread(target=self._read_stderr, daemon=True)
        self._reader.start()

    @property
    def stdout(self) -> IO[str]:
        """What the process writes, line by line; it ends when the process does."""
        assert self._process.stdout is not None  # it was asked for
        return self._process.stdout

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:  # a progress bar's \r ends a line, too
            if text := line.strip():
                self._errors.append(text)
                if self._on_stderr:
                    self._on_stderr(text)

    def send(self, line: str) -> None:
        """Write a line to the process; if it is dead, reading its stdout will tell."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def wait(self) -> int:
        """Wait for the end of the process. Returns its exit status, negative for a signal."""
        return self._process.wait()

    def end(self) -> str:
        """End the process if it runs. Returns a line on why it ended: the signal or last words."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()  # what our children take as the sign to go
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        self._process.kill()
        status = self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):  # an unsent line in the buffer of a dead pipe
                if stream is not None:
                    stream.close()
        last = self._errors[-1] if self._errors else "it gave no reason"
        if status < 0:
            return f"{signal.Signals(-status).name} in native code ({last})"
        return last
