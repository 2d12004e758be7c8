"""What is under way, as one line at the bottom: on stderr, while it lasts, and gone afterwards.

Nothing is shown, and nothing is asked for, where stderr is not a terminal or a dumb one, or where
it is to be quiet. What takes no longer than a blink is not shown either, and rich is not loaded
for it. Lines that `terminal` prints meanwhile stand above the display.

It knows what a line looks like, and not what is done: who works tells by `Display.update`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..system import byte_size
from . import supervise
from .terminal import is_quiet, one_line, talk, write_above

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from ..engine.emulator import Emulator
    from ..engine.loader import OnLoad

_WINDOW = 30.0  # seconds over which a rate is taken
_SETTLING = 0.5  # seconds of work before a rate is worth telling
_LONG_PROMPT = 128  # tokens that take so long to read that they are counted
_MAX_WIDTH, _BAR, _LEAST_BAR = 100, 24, 8  # columns


def duration(seconds: float) -> str:
    """Return a time as people say it: "12 s", "5:20 min", "1:05 h"."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class Pace:
    """How fast something goes, by what was done of it in the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def saw(self, done: int, now: float) -> None:
        """Note how much is done by `now`, in seconds; less than before begins anew."""
        seen = self._seen
        if seen and done < seen[-1][1]:
            seen.clear()
        seen.append((now, done))
        while len(seen) > 2 and seen[1][0] < now - _WINDOW:
            seen.popleft()

    def per_second(self) -> float:
        """Return how much is done in a second; 0 where it is too early to say."""
        (begun, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - begun) if now - begun >= _SETTLING else 0.0


_standing: Display | None = None


class Display:
    """One line about what is under way, shown inside `with`; not inside that of another.

    Args:
        label: what is done.
        total: how much there is to do; None: who knows.
        as_bytes: count bytes, and not things.
        rate: tell how many there are in a second.
        hidden: show nothing.

    Attributes:
        shows: whether there is anybody to show it to.
        delay: seconds before it shows itself.
        tick: seconds between two pictures.
    """

    delay, tick = 0.3, 0.125

    def __init__(
        self,
        label: str,
        *,
        total: int | None = None,
        as_bytes: bool = False,
        rate: bool = False,
        hidden: bool = False,
    ) -> None:
        self.label, self.done, self.total = label, 0, total
        self.shows = not hidden and _somebody_looks()
        self._count = byte_size if as_bytes else "{:,}".format
        self._rate = rate
        self._begun = time.monotonic()
        self._pace = Pace()
        self._pace.saw(0, self._begun)
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        global _standing
        self.shows = self.shows and _standing is None
        if self.shows:
            _standing = self
            write_above(self.above)
            threading.Thread(target=self._show, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wipe the line; nothing more is shown. It can be closed twice."""
        global _standing
        if self._over.is_set() or not self.shows:
            return
        self._over.set()
        with self._lock:
            if self._live is not None:
                self._live.stop()
                supervise.displays(False)
        write_above(None)
        _standing = None

    def update(self, done: int, total: int | None = None, label: str | None = None) -> None:
        """Tell how far it is; None: as before."""
        if not self.shows:
            return
        self.done = done
        if total is not None:
            self.total = total
        if label is not None:
            self.label = label
        self._pace.saw(done, time.monotonic())

    @contextlib.contextmanager
    def above(self) -> Iterator[None]:
        """Let whole lines be written where the display stands; it goes on below them."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
            yield

    def _show(self) -> None:
        """Draw until all is over; on a thread of its own."""
        if self._over.wait(self.delay):
            return
        live = _live_line(self)
        with contextlib.suppress(OSError):  # the terminal went away
            while True:
                with self._lock:
                    if self._over.is_set():
                        return
                    if self._live is None:
                        supervise.displays(True)
                        self._live = live
                    live.start()
                    live.refresh()
                self._over.wait(self.tick)

    def figures(self, width: int) -> str:
        """Return how far it is and how fast it goes, in at most half of `width` columns."""
        if self.total is None:
            seconds = time.monotonic() - self._begun
            told = [self._count(self.done)] if self.done else []
            return " · ".join([*told, *([duration(seconds)] if seconds > 2 else [])])
        between = " of " if self._count is byte_size else "/"
        told = [f"{self._count(self.done)}{between}{self._count(self.total)}"]
        if pace := self._pace.per_second():
            each = f"{byte_size(int(pace))}/s" if self._count is byte_size else f"{pace:.1f}/s"
            told += [each] if self._rate else []
            left = max(self.total - self.done, 0) / pace
            told += [f"{duration(left)} left"]
        while len(" · ".join(told)) > width // 2 and len(told) > 1:
            told.pop(-2 if len(told) > 2 else -1)
        return " · ".join(told)


def _somebody_looks() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not is_quiet()


def _live_line(display: Display) -> Live:
    """Return what rich draws a display with: it loads a tenth of a second, so only here."""
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.spinner import Spinner
    from rich.table import Table

    from .console import console, text

    screen = console(err=True)
    spinner = Spinner("dots" if screen.encoding.startswith("utf") else "line")

    def line() -> Table:
        columns = os.get_terminal_size(screen.file.fileno()).columns or _MAX_WIDTH
        screen.width = width = min(columns, _MAX_WIDTH) - 1  # the last column may end the line
        label = text(one_line(display.label))
        figures = text(display.figures(width), "dim")
        room = width - 2 - (figures.cell_len + 2 if figures else 0)
        n_bar = max(min(_BAR, room - label.cell_len - 2), _LEAST_BAR)
        has_bar = display.total is not None and room - n_bar - 2 >= min(label.cell_len, width // 3)
        label.truncate(max(room - (n_bar + 2) * has_bar, 1), overflow="ellipsis")
        parts = [spinner.render(screen.get_time()), label]
        if has_bar:
            parts.append(
                ProgressBar(
                    max(display.total or 1, 1),
                    min(display.done, display.total or 1),
                    width=n_bar,
                    style="dim",
                    complete_style="cyan",
                    finished_style="cyan",
                )
            )
        parts += [figures] if figures else []
        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in parts:
            table.add_column(no_wrap=True)
        table.add_row(*parts)
        return table

    return Live(
        get_renderable=line,
        console=screen,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


@contextlib.contextmanager
def loading() -> Iterator[OnLoad | None]:
    """Show the models as they load. Yields the `on_load` of an `Emulator`."""
    with Display("loading", as_bytes=True) as display:

        def on_load(file: Path, done: int, total: int) -> None:
            display.update(done, total, f"loading {file.name}")

        yield on_load if display.shows else None


def sha256(file: Path) -> str:
    """Return the sha256 of a file, showing how much of it is read."""
    from ..files.hashes import file_sha256

    label = f"comparing {file.name}"
    with Display(label, total=file.stat().st_size, as_bytes=True) as display:
        return file_sha256(file, read=display.update if display.shows else None)


class Waiting(Display):
    """What is shown until a model begins to speak: it thinks, or reads a long prompt."""

    def __init__(self) -> None:
        super().__init__("thinking…")
        self.who = ""

    def thinks(self, who: str) -> None:
        """Name the model that is asked next."""
        self.who = f"{who}: "
        self.speaks(0)

    def speaks(self, n_tokens: int) -> None:
        """Tell the tokens of a reply that is not shown as it comes."""
        self.total = None
        plural = "s" * (n_tokens != 1)
        self.update(n_tokens, label=f"{self.who}{f'token{plural}' if n_tokens else 'thinking…'}")

    def reads(self, _: int, done: int, total: int) -> None:
        """Tell the tokens of the prompt that are read; `on_progress` of `Emulator.prefill`."""
        if self.total is None and total - done <= _LONG_PROMPT:
            return
        if self.total is None:  # what the cache had took no time
            self._pace = Pace()
        self.update(done, total, f"{self.who}reading the prompt")


@contextlib.contextmanager
def waiting(emulator: Emulator) -> Iterator[Waiting]:
    """Show what `emulator` does until the display is closed, as with the first token."""
    with Waiting() as display:
        if not display.shows:
            yield display
            return
        emulator.prefill.on_progress = display.reads
        try:
            yield display
        finally:
            emulator.prefill.on_progress = None


class Transfer(Display):
    """Bytes on their way, with their rate; without a terminal, a line for each step.

    Args:
        total: bytes of all.
    """

    def __init__(self, label: str, total: int) -> None:
        super().__init__(label, total=max(total, 1), as_bytes=True, rate=True)

    def moved(self, n_bytes: int) -> None:
        """Say that so many more bytes are there; less than 0 if some are there no more."""
        self.update(self.done + n_bytes)

    def step(self, line: str, n_bytes: int) -> None:
        """Say what comes next, where it is not shown."""
        if not self.shows:
            self.note(f"{line} ({byte_size(n_bytes)})")

    def note(self, line: str) -> None:
        """Say a line; the display goes on below it."""
        talk(one_line(line))
