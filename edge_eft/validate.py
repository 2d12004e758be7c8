"""Checks of the values that options take, in one wording for all of them."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from .errors import EdgeEftError, RequestError

P = ParamSpec("P")
T = TypeVar("T")


def number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    error: type[EdgeEftError] = RequestError,
) -> float:
    """Return `value` as a finite float in [low, high], or (low, high] if `open_low`.

    Raises:
        RequestError, or `error`: it does not fit; the message names the option, what was seen and
            the range.
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
        raise error(f"{name} is {value!r:.40}; it must be a number in {bounds}")
    return float(value) + 0.0  # −0.0 is 0


def whole(
    name: str,
    value: Any,
    low: int,
    high: int = 2**31 - 1,
    *,
    error: type[EdgeEftError] = RequestError,
) -> int:
    """Return `value` if it is an int in [low, high], else raise an error as `number` does."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise error(f"{name} is {value!r:.40}; it must be a whole number in [{low}, {high}]")
    return value


def kind(
    name: str,
    value: Any,
    kinds: Any,
    wanted: str,
    error: type[EdgeEftError] = RequestError,
) -> None:
    """Raise `error` if `value` is none of `kinds`; `wanted` says in words what it must be."""
    if not isinstance(value, kinds):
        raise error(f"{name} is {value!r:.40}; it must be {wanted}")


def checked_call(
    error: type[EdgeEftError] = RequestError,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function refuse arguments that it does not take by an `error` of ours.

    A name that it does not know comes with the nearest one that it does.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        name = function.__qualname__.removesuffix(".__init__")
        options = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            and parameter.name not in ("self", "cls")
        ]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as problem:
                unknown = [word for word in kwargs if word not in options]
                if not unknown:
                    raise error(f"{name}: {problem}") from None
                near = did_you_mean(unknown[0], options)
                raise error(f"{name} has no option {unknown[0]!r}{near}") from None
            return function(*args, **kwargs)

        return checked

    return decorate


def checked_init(error: type[EdgeEftError] = RequestError) -> Callable[[type[T]], type[T]]:
    """`checked_call` for the arguments that a class is made of."""

    def decorate(cls: type[T]) -> type[T]:
        cls.__init__ = checked_call(error)(cls.__init__)  # type: ignore[method-assign]
        return cls

    return decorate


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return a hint at the nearest known word, "" if none is near."""
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
