"""What the value of an option may be, and the range of a number in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import EdgeEftError
from ..files.plain_text import decode

_WIDE = 10**9  # a bound that only computers know


class Text(click.ParamType):
    """Words for a model. What is not UTF-8 comes as half characters, which no model can be told."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return decode(value.encode())
        except UnicodeEncodeError:
            self.fail(f"{value!r:.60}, which is not UTF-8; convert it", param, ctx)
        except UnicodeDecodeError:  # from a file of defaults: no command line can hold one
            self.fail(f"{value!r:.60}, which has a NUL; leave that out", param, ctx)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the one text that an environment variable holds."""
        return [rv]


class Finite(click.FloatRange):
    """A number in a range, which neither NaN nor infinity is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r:.40} is not in the range.", param, ctx)
        return number + 0.0  # −0.0 is 0


class Written(click.ParamType):
    """What a setting's own reader makes of a text; `wanted` says in words what that can be."""

    name = "text"

    def __init__(self, name: str, read: Callable[[str], Any], wanted: str) -> None:
        self._name, self._read, self.wanted = name, read, wanted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except EdgeEftError as error:  # it names the setting, as the refusal will
            self.fail(str(error).removeprefix(f"{self._name} is "), param, ctx)
        except ValueError:
            self.fail(f"{value!r:.60}; it must be {self.wanted}", param, ctx)


def span(kind: click.IntRange | click.FloatRange) -> str:
    """Return the range of a number in words, such as "0 to 1"; "" if it has none."""
    if kind.min is None:
        return ""
    low = f"more than {kind.min:,}" if kind.min_open else f"{kind.min:,}"
    if kind.max is None or kind.max >= _WIDE:
        return low if kind.min_open else f"{low} or more"
    return f"{low}, up to {kind.max:,}" if kind.min_open else f"{low} to {kind.max:,}"
