"""A reply on a terminal as it comes: Markdown in whole words, which follows the terminal's width.

What is final is printed for good. What is not, mostly the line that is being written, is drawn
again when it has changed, from the first row that differs; mostly that is the end of the last one,
and nothing moves. A thread draws, so that no token waits for it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque

from rich.cells import cell_len
from rich.control import Control
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

from .console import console
from .markdown import MarkdownLines
from .terminal import ControlFilter, writing_to

_FRAME = 0.05  # seconds between two drawings
_TALLEST = 24  # rows that are drawn again and again, on a large screen, too
_NARROWEST = 16  # columns that replies are wrapped to, and no fewer
_SETTLED = 0.3  # seconds in which a window that is being resized keeps its size


class LiveLines:
    """The last lines on a terminal, which can still change. The cursor stays behind them.

    Attributes:
        console: of the terminal's width, as `fit` found it.
        rows: of the terminal.
    """

    def __init__(self) -> None:
        self._shown: list[Text] = []
        self._is_lost = False
        self._fitted = self._seen = (0, 0)
        self.fit()

    def fit(self) -> None:
        """Take the terminal's size as it is now."""
        self._seen = size = shutil.get_terminal_size((100, 24))
        if size != self._fitted:
            self._fitted, self.console = size, console()
            self.rows, self._columns = max(size.lines, 2), max(size.columns, 1)
            # What the terminal wraps by itself cannot be drawn again for certain.
            self.console.width = min(self.console.width, max(self._columns, _NARROWEST))

    def settled(self) -> bool:
        """Return whether the terminal's size is what it was when this, or `fit`, was called."""
        before, self._seen = self._seen, shutil.get_terminal_size((100, 24))
        return before == self._seen

    def height(self, lines: list[Text]) -> int:
        """Return the rows that lines take: those of code can be wider than the terminal."""
        return sum(_rows(line.plain, self._columns) for line in lines)

    def lose(self) -> None:
        """Draw, next time, what can change from where the cursor is: others have written since."""
        self._is_lost = True

    def draw(self, final: list[Text], live: list[Text]) -> None:
        """Show lines where those are that can change; from now on these are `live`."""
        shown, self._shown, new = self._shown, live, [*final, *live]
        if is_lost := self._is_lost:
            shown, self._is_lost = [], False
        same = 0
        while same < min(len(shown), len(new)) and shown[same] == new[same]:
            same += 1
        old, new = shown[same:], new[same:]
        segments = []
        erase = (ControlType.ERASE_IN_LINE, 2)
        if is_lost:
            segments.append(Control(ControlType.CARRIAGE_RETURN, erase).segment)
        elif len(old) == 1 and new and new[0][: len(old[0])] == old[0]:
            new[0] = new[0][len(old[0]) :]  # it has become longer
        elif old:
            # What became too wide for the terminal was wrapped by it.
            up = min(self.height(old), self.rows) - 1
            above = ((ControlType.CURSOR_UP, 1), erase) * up
            segments.append(Control(ControlType.CARRIAGE_RETURN, erase, *above).segment)
        elif shown and new:
            segments.append(Segment.line())
        for i, line in enumerate(new):
            segments += [*([Segment.line()] if i else []), *line.render(self.console)]
        if segments:
            with writing_to("stdout"):
                self.console.print(Segments(segments), end="", crop=False)


def _rows(text: str, columns: int) -> int:
    """Return the rows that a terminal wraps a text to; what is wide is not cut in two."""
    if (width := cell_len(text)) <= columns or text.isascii() or columns < 2:
        return max(1, -(-width // columns))
    rows, used = 1, 0
    for wide in map(cell_len, text):
        rows, used = (rows + 1, wide) if used + wide > columns else (rows, used + wide)
    return rows


class ReplyView:
    """Draws a reply on a terminal from its pieces; what is drawn at the end does not tell them."""

    def __init__(self) -> None:
        self._markdown, self.screen = MarkdownLines(), LiveLines()
        self._line = ""  # the unfinished one, and line ends that no text follows yet

    def show(self, text: str) -> None:
        """Draw the reply with its next piece."""
        final, line = self._read(text)
        live = self._markdown.preview(line, self.screen.console)
        for _ in range(2):  # a table, and a line below it
            if self.screen.height(live) < min(self.screen.rows - 1, _TALLEST):
                break
            begun, left = self._markdown.begin(line, self.screen.console)
            final += begun
            self._line, line = left + self._line[len(line) :], left
            live = self._markdown.preview(line, self.screen.console)
        if final or line:
            self.screen.draw(final, live)

    def end(self, text: str = "") -> None:
        """Draw the reply with its last piece, and end its line."""
        final, line = self._read(text)
        final += self._markdown.take(line, self.screen.console) if line else []
        final += self._markdown.rest(self.screen.console)
        if final:
            self.screen.draw(final, [Text()])

    def _read(self, text: str) -> tuple[list[Text], str]:
        """Return the lines that are final with the next piece, and the unfinished one."""
        self.screen.fit()
        text = self._line + text
        begun = text.rstrip("\n")
        *whole, line = begun.split("\n")
        self._line = line + text[len(begun) :]
        final = [row for each in whole for row in self._markdown.take(each, self.screen.console)]
        return final, line


class MarkdownWriter:
    """Writes a reply to a terminal, stdout, as it comes: rendered, and harmless."""

    def __init__(self) -> None:
        self._filter, self._view = ControlFilter(), ReplyView()
        self._pieces: deque[str] = deque()  # what has come and is not drawn
        self._failure: OSError | None = None
        self._news, self._end = threading.Event(), threading.Event()
        self._drawer: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Show the next chunk, soon. Raises OSError if an earlier one could not be shown."""
        if self._failure:
            raise self._failure
        self._pieces.append(self._filter.filter(text))
        self._news.set()
        if self._drawer is None:
            self._drawer = threading.Thread(target=self._draw, daemon=True)
            self._drawer.start()

    def again(self) -> None:
        """Go on after the terminal was another's: the unfinished line is drawn anew."""
        self._view.screen.lose()
        self._news.set()

    def close(self) -> None:
        """Show the rest, and end the line. Raises OSError if that is not possible."""
        self._end.set()
        self._news.set()
        if self._drawer:
            self._drawer.join()
        if self._failure:
            raise self._failure
        self._view.end(self._come())

    def _draw(self) -> None:
        try:
            while not self._end.is_set():
                self._news.wait()
                self._news.clear()
                while not (self._view.screen.settled() or self._end.wait(_SETTLED)):
                    pass  # terminals tell of a size late, and of each that a window passes through
                began = time.monotonic()
                self._view.show(self._come())
                self._end.wait(max(_FRAME, 10 * (time.monotonic() - began)))  # a tenth of the time
        except OSError as error:  # for the thread that writes
            self._failure = error

    def _come(self) -> str:
        return "".join(self._pieces.popleft() for _ in range(len(self._pieces)))
