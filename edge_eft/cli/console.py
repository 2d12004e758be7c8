"""rich on our terms: tables, Markdown and live displays, in which a stranger's text stays text.

rich is imported here and in the modules that build on this one, which are imported when something
is shown: `--help` and what is refused do without it. Single lines go through `terminal.say`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .terminal import above, harmless, is_quiet, terminal_width, writing_to


class HarmlessConsole(Console):
    """A console that writes no control sequence but rich's own.

    What reaches it should be filtered already, by `text`: what is dropped here was counted when
    columns were measured. This is the second lock, whoever renders.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yield the segments of `renderable`, their text filtered."""
        for segment in super().render(renderable, options):
            if segment.control or (segment.text.isascii() and segment.text.isprintable()):
                yield segment
            else:
                yield segment._replace(text=harmless(segment.text))

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor alone: who is stopped (Ctrl-Z) or killed would leave none behind."""
        return False


def console(*, err: bool = False) -> HarmlessConsole:
    """Return a console on stdout or, if `err`, on stderr, as it is now.

    No text is read as markup, nothing is highlighted by guess, lines fit `terminal_width`.
    """
    file = sys.stderr if err else sys.stdout
    return HarmlessConsole(
        file=file,
        width=terminal_width(),
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
        quiet=err and is_quiet(),
    )


def show(*renderables: RenderableType, err: bool = False) -> None:
    """Print what rich can render, one below the other, on stdout or, if `err`, on stderr."""
    with writing_to("stderr" if err else "stdout"), above():
        console(err=err).print(*renderables, sep="\n")


def text(content: object, style: str = "", **how: Any) -> Text:
    """Return the harmless part of a text in a style of rich, such as "bold" or "dim"."""
    return Text(harmless(str(content)), style, **how)
