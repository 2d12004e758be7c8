"""Ctrl-C ends a command within a second, whatever is going on, and so does the parent's death.

Python runs signal handlers between its own instructions on the main thread only. A thread that
waits for the wake-up descriptor hears of a signal at once: if the main thread does not answer in
time because it is in native code, the process ends. What is written whole or not at all stays so.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

PATIENCE = 0.7  # seconds for the main thread to answer
_JUST_NOW = 0.1  # seconds by which the main thread may have been faster than the watching one

_answered_at = -1.0
_wakeup: int | None = None


def watch(lifeline: int | None) -> None:
    """Begin to watch, in the process of a command, on its main thread.

    Args:
        lifeline: a descriptor that ends when the parent does; None: there is no parent, and native
            code is waited for.
    """
    global _wakeup
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGINT, _on_interrupt)
        sys.unraisablehook = _on_unraisable
    if lifeline is None:
        return
    reader, _wakeup = os.pipe()
    os.set_blocking(_wakeup, False)
    listen()
    threading.Thread(target=_watch, args=(reader, lifeline), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # the supervisor blocked it


def listen() -> None:
    """Hear of signals (again): asyncio takes the wake-up descriptor away when it is done."""
    if _wakeup is not None:
        signal.set_wakeup_fd(_wakeup, warn_on_full_buffer=False)


def _on_interrupt(number: int, frame: FrameType | None) -> None:
    global _answered_at
    _answered_at = time.monotonic()
    signal.default_int_handler(number, frame)


def _on_unraisable(unraisable: Any) -> None:
    """Interrupt again, soon, if a callback or finaliser swallowed a KeyboardInterrupt."""
    if unraisable.exc_type is KeyboardInterrupt:
        with contextlib.suppress(RuntimeError):  # the interpreter is ending anyway
            threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(unraisable)


def _watch(reader: int, lifeline: int) -> None:
    while True:
        ready, _, _ = select.select([reader, lifeline], [], [])
        if lifeline in ready:
            os.kill(os.getpid(), signal.SIGTERM)
        heard_at = time.monotonic()
        if signal.SIGINT in os.read(reader, 64):
            while _answered_at < heard_at - _JUST_NOW:
                if time.monotonic() > heard_at + PATIENCE:
                    os._exit(130)
                time.sleep(0.02)
