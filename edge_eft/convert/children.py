"""Starting child processes: the native worker, and Python scripts in a clean environment.

Both get a pipe as stdin that closes when this process dies, however it dies, and both watch it.
Nothing that a child prints reaches the terminal unfiltered.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import edge_eft

from . import ConversionError

Progress = Callable[[int, int], None]

_PACKAGE_ROOT = str(Path(edge_eft.__file__).parents[1])
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

# What a script needs of the surroundings; no PYTHON* settings, no tokens, no proxies.
_KEPT = ("PATH", "HOME", "TMPDIR", "TEMP", "TMP", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH")


class Worker:
    """A child process for native tasks, started when first needed and again after a crash.

    A context manager: leaving it ends the process, whatever it is doing.
    """

    def __init__(self) -> None:
        self._child: _Child | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def work(self, task: str, *, on_progress: Progress | None = None, **arguments: Any) -> Any:
        """Run one task of `native.py`. Returns its result.

        Raises:
            ConversionError: the task failed, or its process died (then with the signal's name).
        """
        if self._child is None:
            self._child = _Child(_WORKER, _worker_environment())
        job = {key: os.fspath(v) if isinstance(v, Path) else v for key, v in arguments.items()}
        self._child.send(json.dumps({"task": task, **job}))
        for line in self._child.stdout:
            event = json.loads(line)
            if "error" in event:
                raise ConversionError(event["error"])
            if "result" in event:
                return event["result"]
            if on_progress:
                on_progress(*event["progress"])
        reason = self._child.end()
        self._child = None
        raise ConversionError(f"{task} stopped: {reason}")


_WORKER = ["-m", "edge_eft.convert.worker"]


def _worker_environment() -> dict[str, str]:
    path = [_PACKAGE_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "GGML_NO_BACKTRACE": "1"}


def run_script(
    script: Path,
    arguments: list[str],
    *,
    extra_environment: Mapping[str, str] | None = None,
    on_stderr: Callable[[str], None] | None = None,
) -> None:
    """Run a Python script in a clean environment, offline, on this interpreter.

    Raises:
        ConversionError: it failed, with the last line that it wrote.
    """
    environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **(extra_environment or {}),
    }
    runner = Path(__file__).with_name("runner.py")
    child = _Child([str(runner), str(script), *arguments], environment, on_stderr)
    try:
        for _ in child.stdout:
            pass
        status = child.wait()
    finally:
        reason = child.end()
    if status:
        raise ConversionError(f"{script.name} failed: {reason}")


class _Child:
    """A Python process with pipes, whose last lines on stderr are kept."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
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
        assert self._process.stdout is not None  # it was asked for
        return self._process.stdout

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:  # a progress bar's \r ends a line, too
            if text := _CONTROL.sub(" ", line).strip():
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
