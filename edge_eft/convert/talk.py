"""What a conversion tells while it works. It prints nothing: the command line does, and filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Talk:
    """Keeps the warnings for the report; a front end overrides `warn` and `step` to show them."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, line: str) -> None:
        """Take a line that the user should not miss, once."""
        if line not in self.warnings:
            self.warnings.append(line)

    @contextmanager
    def step(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Surround a piece of work. Yields f(done, total)."""
        yield lambda done, total: None
