"""The child process that does the native work: quantising, calibrating, measuring.

It reads jobs as lines of JSON from stdin and answers each with events as lines of JSON on stdout:
any number of {"progress": [done, total]}, then {"result": …} or {"error": "…"}. When stdin ends,
because the parent is done or dead, so does the worker, even in the middle of native code.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from ..errors import EdgeEftError
from . import native


def main() -> None:
    """Do the jobs that stdin names, one after the other."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # native code that prints must not break the protocol
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()
    while True:
        job = json.loads(jobs.get())
        try:
            _emit(events, result=_run(job, events))
        except EdgeEftError as error:
            _emit(events, error=str(error))


def _read_jobs(jobs: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


def _emit(events: TextIO, **event: Any) -> None:
    """Write one event; end the process if the parent is gone."""
    try:
        events.write(json.dumps(event) + "\n")
        events.flush()
    except OSError:
        os._exit(1)


def _run(job: dict[str, Any], events: TextIO) -> Any:
    def progress(done: int, total: int) -> None:
        _emit(events, progress=[done, total])

    task = getattr(native, "task_" + job.pop("task"))
    arguments = {
        key: Path(value) if key in native.PATHS and value is not None else value
        for key, value in job.items()
    }
    return task(progress=progress, **arguments)


if __name__ == "__main__":
    main()
