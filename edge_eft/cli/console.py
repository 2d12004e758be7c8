"""rich on our terms: tables, Markdown and live displays, in which a stranger's text stays text.

rich is imported here and in the modules that build on this one, which are imported when something
is shown: `--help` and what is refused do without it. Single lines go through `terminal.say`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from .terminal import Styled, above, harmless, is_quiet, one_line, terminal_width, writing_to


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

    def on_broken_pipe(self) -> None:
        """Say that nobody reads, as others' writes do; rich's own ends the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor alone: who is stopped (Ctrl-Z) or killed would leave none behind."""
        return False


def console(*, err: bool = False) -> HarmlessConsole:
    """Return a console on stdout or, if `err`, on stderr, as it is now.

    No text is read as markup, nothing is highlighted by guess, lines fit `terminal_width`. With
    NO_COLOR there are no styles either, as of `click`'s.
    """
    file = sys.stderr if err else sys.stdout
    return HarmlessConsole(
        file=file,
        width=terminal_width(),
        height=shutil.get_terminal_size((100, 24)).lines,  # else a dumb terminal has 80 columns
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
        quiet=err and is_quiet(),
    )


def show(*renderables: RenderableType, err: bool = False) -> None:
    """Print what rich can render, one below the other, on stdout or, if `err`, on stderr.

    Lines end where their text does, and none is cut: what does not fit was not to be wrapped.
    """
    with writing_to("stderr" if err else "stdout"), above():
        console(err=err).print(_Trimmed(renderables), end="", crop=False)


def rendered(*renderables: RenderableType) -> Styled:
    """Return what `show` would print on stdout, for `say`."""
    shown = console()
    with shown.capture() as captured:
        shown.print(_Trimmed(renderables), end="", crop=False)
    return Styled(captured.get().removesuffix("\n"))


class _Trimmed:
    """Renders all, and leaves out the blanks with which rich fills its tables' lines."""

    def __init__(self, renderables: Iterable[RenderableType]) -> None:
        self._renderables = renderables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for renderable in self._renderables:
            for segments in Segment.split_lines(console.render(renderable, options)):
                while segments and not segments[-1].text.strip(" "):
                    segments.pop()
                if segments:
                    last = segments.pop()
                    segments.append(last._replace(text=last.text.rstrip(" ")))
                yield from segments
                yield Segment.line()


def text(content: object, style: str = "", **how: Any) -> Text:
    """Return the harmless part of a text in a style of rich, such as "bold" or "dim"."""
    return Text(harmless(str(content)), style, **how)


def line(content: object, style: str = "", **how: Any) -> Text:
    """Return the harmless part of a text as one line, as `text` does."""
    return Text(one_line(str(content)), style, **how)
