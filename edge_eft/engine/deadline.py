"""The end of a process in which native code does not come back.

No thread of Python can stop another one that is in native code. In a process whose death is
foreseen, an end that says why is better than an answer for nobody.
"""

from __future__ import annotations

import os
import threading
import time

_PARTS = 10  # of the seconds, after each of which it is looked at


class Deadline:
    """A block of code, of one thread, that ends the process when it takes too long.

    Args:
        seconds: that the block may take.
        words: the process's last, on stderr as it is now.
    """

    def __init__(self, seconds: float, words: str) -> None:
        self._seconds, self._words = seconds, words
        self._stderr = os.dup(2)  # a grammar that is read has stderr for itself
        self._entered = 0  # how often
        self._is_inside = False
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> None:
        self._entered += 1
        self._is_inside = True

    def __exit__(self, *_: object) -> None:
        self._is_inside = False

    def _watch(self) -> None:
        """Count the looks that find the same block: a process that sleeps is not slow."""
        seen, times = 0, 0
        while times <= _PARTS:
            time.sleep(self._seconds / _PARTS)
            times = times + 1 if self._is_inside and self._entered == seen else 0
            seen = self._entered
        os.write(self._stderr, f"{self._words}\n".encode())
        os._exit(1)
