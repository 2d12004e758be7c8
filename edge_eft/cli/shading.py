"""A reply's tokens, shaded by what the delta did to each; as a list where nothing can be shaded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from ..evaluate.token_shifts import TokenShift
from .console import console, show, text
from .terminal import say, supports, talk

# Factors by which the delta made a token likelier, or less likely: sign → style of rich. What
# differs is more than a colour: underlined, bold, reversed.
_STYLES = {
    "++": "bold underline green",
    "+": "underline green",
    "": "",
    "-": "reverse red",
    "--": "bold reverse red",
}
_SOME, _MUCH = math.log(2), math.log(10)
LEGEND = {
    "++": "underlined and bold: 10 times likelier",
    "+": "underlined: likelier (twice or more)",
    "-": "reversed: less likely (half or less)",
    "--": "reversed and bold: a tenth",
}


def sign(shift: float) -> str:
    """Return "++" for ten times likelier or more, "+" for twice, "-", "--", or "" between."""
    mark = "+" if shift > 0 else "-"
    return mark * ((abs(shift) >= _SOME) + (abs(shift) >= _MUCH))


def show_shifts(shifts: Sequence[TokenShift]) -> None:
    """Show what the delta did to the tokens of a reply."""
    if not console().color_system:  # no terminal, or one that can only write
        for entry in shifts:
            figures = f"{_figure(entry.shift)} {_figure(entry.emulated)} {_figure(entry.base)}"
            say(f"{figures} {json.dumps(entry.text, ensure_ascii=False)}")
        talk(
            "log p, emulated − base: above 0 the delta made the token likelier (0.69: twice); "
            "log p emulated; log p base; token"
        )
        return
    reply, legend = text(""), text("").append("what the delta did: ", "dim")
    for entry in shifts:
        reply.append_text(text(entry.text, _STYLES[sign(entry.shift)]))
    for mark, what in LEGEND.items():
        legend.append_text(text(what, _STYLES[mark])).append(", " if mark != "--" else "")
    show(reply, legend)
    n = sum(bool(sign(entry.shift)) for entry in shifts)
    talk(f"{n} of {len(shifts)} tokens at least twice or half as likely as under the base alone")


def _figure(value: float) -> str:
    minus = "−" if supports("−") else "-"
    return f"{value + 0.0:8.2f}".replace("-", minus)
