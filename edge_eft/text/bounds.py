"""What a chat template may cost: processor time, memory, sizes; estimates of what is not built yet.

The units: a value *weighs* its characters, and 8 for each element of a list, tuple or dict, counted
as often as it would be printed. Work is counted in about 50 ns each, so that the clock is looked at
often enough without being looked at always. Time is the thread's own: a busy machine refuses
nothing. This module knows nothing of Jinja's syntax trees and of tokens.
"""

import re
import sys
import time
from collections.abc import ItemsView, KeysView, Mapping, Sequence, ValuesView
from typing import Any

import psutil
from jinja2.sandbox import SecurityError

MAX_SECONDS = 0.5  # of processor time for one prompt; a single operation can overrun it by 0.1 s
MAX_VALUE = 1 << 20  # the weight of one value, on top of 4 × the characters of the messages
MAX_OUTPUT = 1 << 22  # characters put out, on top of as many
MAX_BYTES = 40 << 20  # that may be made without looking whether they are still there
MAX_DEPTH = 64  # of lists in lists
MAX_INT = 1 << 64
_ELEMENT = 8
_FRESH = 80  # bytes of a small object and the pointer to it
_LOOK = 1_000  # work between two looks at the clock
_PER_CHARACTER, _PER_MESSAGE = 32, 16 << 10  # bytes more for longer conversations

MAX_WIDTH = 999
_MAX_PATTERN = 1 << 24  # character comparisons of a search without a good worst case
_MAX_FORM = 512  # characters of a date format
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# A wider width than MAX_WIDTH, or a computed one.
_WIDE_PERCENT = re.compile(r"%(?:\([^()]*\))?[-+ #0_^.\d]*(?:\d{4}|\*)")
_WIDE_BRACES = re.compile(r"\{[^{}:]*:[^{}]*(?:\d{4}|\{)")
_PART = re.compile(r"\{[^{}:!]*[.\[]")


class Budget:
    """What is left for one prompt, which may take several renderings.

    Args:
        n_characters, n_messages: how long the conversation is.
    """

    def __init__(self, n_characters: int, n_messages: int) -> None:
        self._seconds = MAX_SECONDS + n_messages / 5e3 + max(0, n_characters - MAX_VALUE) / 2e6
        self._deadline = time.thread_time() + self._seconds
        self.max_value = MAX_VALUE + 4 * n_characters
        self._max_out = MAX_OUTPUT + 4 * n_characters
        self._max_bytes = MAX_BYTES + _PER_CHARACTER * n_characters + _PER_MESSAGE * n_messages
        self._max_pattern = _MAX_PATTERN + 64 * n_characters
        self._work = 0
        self.begin()

    def begin(self) -> None:
        """A rendering begins: what earlier ones made is free, the time they took is gone."""
        self._n_out = 0
        self._n_bytes = 0
        self._held: int | None = None

    def work(self, units: int, n_bytes: int = 0) -> None:
        """Count work, and bytes of new objects."""
        self._n_bytes += n_bytes
        self._work += units + (n_bytes >> 10)
        if self._work > _LOOK:
            self._work = 0
            if self._n_bytes > self._max_bytes:
                self._look_at_memory()
            if time.thread_time() > self._deadline:
                raise SecurityError(f"run for more than {self._seconds:.1f} s")

    def _look_at_memory(self) -> None:
        """Refuse what is kept; a text that grows by every message leaves its shorter ones behind.

        Only a rendering that made much gets here. Another thread's memory counts, too.
        """
        held = _process_memory()
        if self._held is not None and held - self._held > self._max_bytes:
            raise SecurityError(f"keep more than {self._max_bytes >> 20} MB of values")
        self._held = held if self._held is None else self._held
        self._n_bytes = 0

    def check(self, weight: int) -> None:
        """Refuse a value that would weigh this much."""
        if weight > self.max_value:
            raise SecurityError(f"make a value of more than {self.max_value} characters")

    def check_search(self, text: str, pattern: Any) -> None:
        """Refuse a search that may compare every character of one with every one of the other."""
        if isinstance(pattern, str) and len(text) * len(pattern) > self._max_pattern:
            raise SecurityError(f"search {len(text)} characters for {len(pattern)}")

    def weigh(self, value: Any) -> int:
        """Return what a value weighs, and count the work of going through it.

        Raises:
            SecurityError: it is too large, too deep, or has too large a number.
        """
        if isinstance(value, str):
            n = len(value)
            self.check(n)
            self.work(4 + (n >> 8))
            return n
        n, n_seen = 0, 0
        rest = [(value, 0)]
        while rest:
            value, depth = rest.pop()
            n_seen += 1
            n += _ELEMENT
            if isinstance(value, str | bytes):
                n += len(value)
            elif isinstance(value, list | tuple | Mapping | KeysView | ValuesView | ItemsView):
                n += _ELEMENT * len(value)
                if n <= self.max_value:
                    rest += [(part, depth + 1) for part in value]
                if isinstance(value, Mapping):
                    rest += [(part, depth + 1) for part in value.values()]
            elif isinstance(value, range):
                n += _ELEMENT * len(value)
            elif isinstance(value, int) and abs(value) > MAX_INT:
                raise SecurityError(f"make a number of {value.bit_length()} bits")
            self.check(n)
            if depth > MAX_DEPTH:
                raise SecurityError(f"nest values more than {MAX_DEPTH} deep")
        self.work(n_seen * 3 + (n >> 8))
        return n

    def made(self, value: Any, *, fresh: bool = False) -> Any:
        """Return a value that was just made, weighed. `fresh`: its elements are new, too."""
        self.weigh(value)
        n_bytes = sys.getsizeof(value, 0) + 256
        if fresh and isinstance(value, list | tuple | Mapping):
            n_bytes += _FRESH * len(value)
        self.work(4, n_bytes)
        return value

    def put_out(self, n: int) -> None:
        """Count characters that are put out; they may be kept, by 4 bytes each."""
        self._n_out += n
        if self._n_out > self._max_out:
            raise SecurityError(f"put out more than {self._max_out} characters")
        self.work(8 + (n >> 8), 4 * n)


def _process_memory() -> int:
    """Bytes of this process that are not a file's: models are mapped, and come and go."""
    used = psutil.Process().memory_info()
    return int(used.rss - getattr(used, "shared", 0))


# --- what an operation would make -----------------------------------------------------------


def check_widths(values: Sequence[Any]) -> None:
    """Refuse numbers that are too large, and texts that are too long, to be widths."""
    for value in values:
        if isinstance(value, int) and abs(value) > MAX_WIDTH:
            raise SecurityError(f"use {value} as a width")
        if isinstance(value, str) and len(value) > MAX_WIDTH:
            raise SecurityError("use a long text as an indentation or separator")


def check_names(values: Sequence[Any]) -> None:
    """Refuse texts that are too long to be names of attributes and filters."""
    if any(isinstance(value, str) and len(value) > MAX_WIDTH for value in values):
        raise SecurityError("use a long text as a name")


def replaced(text: str, old: str, new: str) -> int:
    """Return at most how long `text` is with `old` replaced."""
    return len(text) + text.count(old) * len(new)


def indented(text: str, width: Any) -> int:
    """Return how long `text` is with each line indented by a number or a text."""
    n_lines = 1 + sum(text.count(end) for end in _LINE_ENDS)
    return len(text) + n_lines * (len(width) if isinstance(width, str) else int(width))


def percent(form: str, values: Any, weight: int) -> int:
    """Return about how long `form % values` is; `values` weigh `weight`.

    Raises:
        SecurityError: a width is computed, or larger than MAX_WIDTH.
    """
    if wide := _WIDE_PERCENT.search(form):
        raise SecurityError(f"format with the width {wide[0][:20]!r}")
    n = form.count("%")
    escaped = 12 if "%r" in form or "%a" in form else 1
    times = n if isinstance(values, Mapping) else 1  # what has a name can be asked for again
    return len(form) + times * escaped * weight + _widths(form, n)


def braces(form: str, weight: int) -> int:
    """Return about how long `form.format(…)` is; the values weigh `weight`.

    Raises:
        SecurityError: a width is computed, or larger than MAX_WIDTH, or a part is named.
    """
    if _PART.search(form):  # what an object has can weigh more than the object
        raise SecurityError("format an attribute or an element of something")
    if wide := _WIDE_BRACES.search(form):
        raise SecurityError(f"format with the width {wide[0][:20]!r}")
    n = form.count("{")
    return len(form) + n * (12 if "!" in form else 1) * weight + _widths(form, n)


def _widths(form: str, n: int) -> int:
    return n * MAX_WIDTH if any(c.isdigit() for c in form) else 0


def check_date_format(form: str) -> None:
    """Refuse a date format whose result would be long."""
    if len(form) > _MAX_FORM or _WIDE_PERCENT.search(form):
        raise SecurityError("write a date with such a format")


def tojson(weight: int, indent: Any, separators: Any) -> int:
    """Return about how long a value of `weight` is as JSON, its texts as they are."""
    per_element = sum(map(len, separators or ()))
    if indent is not None:
        per_element += MAX_DEPTH // 4 * (len(indent) if isinstance(indent, str) else int(indent))
    return weight + weight // _ELEMENT * per_element
