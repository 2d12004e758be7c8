"""Checks of the values that options take, in one wording for all of them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from .errors import RequestError


def number(
    name: str, value: Any, low: float, high: float = math.inf, *, open_low: bool = False
) -> float:
    """Return `value` as a finite float in [low, high], or (low, high] if `open_low`.

    Raises:
        RequestError: it does not fit; the message names the option, what was seen and the range.
    """
    try:
        fits = not isinstance(value, bool) and isinstance(value, int | float)
        fits = fits and math.isfinite(value) and low <= value <= high
        fits = fits and not (open_low and value == low)
    except OverflowError:  # an int beyond float
        fits = False
    if not fits:
        upper = "∞)" if high == math.inf else f"{high:g}]"
        bounds = f"{'(' if open_low else '['}{low:g}, {upper}"
        raise RequestError(f"{name} is {value!r:.40}; it must be a number in {bounds}")
    return float(value)


def whole(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """Return `value` if it is an int in [low, high], else raise RequestError as `number` does."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r:.40}; it must be a whole number in [{low}, {high}]")
    return value


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint at the nearest known word, "" if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
