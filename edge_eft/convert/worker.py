"""The parent's end of the native work: jobs to a child process, whose crash is an error message.

It loads no native code; `tasks.py` is the child.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..child import Child, environment
from ..errors import ConversionError

Progress = Callable[[int, int], None]

_TASKS = "edge_eft.convert.tasks"


class Worker:
    """A child process for native tasks, started when first needed and again after a crash.

    A context manager: leaving it ends the process, whatever it is doing.
    """

    def __init__(self) -> None:
        self._child: Child | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def work(self, task: str, *, on_progress: Progress | None = None, **arguments: Any) -> Any:
        """Run one task. Returns its result.

        Raises:
            ConversionError: the task failed, or its process died (then with the signal's name).
        """
        if self._child is None:
            self._child = Child(["-m", _TASKS], environment())
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
