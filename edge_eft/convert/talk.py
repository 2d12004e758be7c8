"""What a conversion tells its user while it works: lines and progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


class Talk:
    """Lines and progress on stderr; stdout stays free for data. `quiet` keeps warnings only."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        """Print a line for the user, unless `quiet`."""
        if not self.quiet:
            click.echo(line, err=True)

    def warn(self, line: str) -> None:
        """Print a line that the user should not miss, once, and keep it for the report."""
        if line not in self.warnings:
            self.warnings.append(line)
            click.echo(f"warning: {line}", err=True)

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Show a piece of work: a bar on a terminal, else one line. Yields f(done, total)."""
        if self.quiet or not sys.stderr.isatty():
            self.say(label)
            yield lambda done, total: None
            return
        with click.progressbar(length=1000, label=label, file=sys.stderr, width=28) as bar:
            shown = 0

            def show(done: int, total: int) -> None:
                nonlocal shown
                now = 1000 * done // max(total, 1)
                bar.update(max(now - shown, 0))
                shown = max(now, shown)

            yield show
            bar.update(max(1000 - shown, 0))
