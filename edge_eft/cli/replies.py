"""Replies on a terminal: as they come, what they took, several side by side.

Consumes steps and knows nothing of how they come about. Ctrl-C stops a reply here.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..engine.reply import Generation, ReplyBuilder, Timings
from ..engine.request import Request
from ..errors import AbortedError
from ..logits.weights import Weights
from .progress import waiting
from .terminal import counted, terminal_width, tidy

if TYPE_CHECKING:
    from ..engine.emulator import Emulator

_LEAST_COLUMN = 24  # of the terminal's, for a reply beside others


def times(timings: Timings) -> dict[str, float]:
    """Return part → seconds, of prompt and reply together: the roles, then combine and sample."""
    decodes = timings.decodes
    sides = ("base", "tuned", "reference")
    roles = sorted(decodes, key=lambda role: sides.index(role.partition(":")[0]))
    return {role: decodes[role] for role in roles} | {
        "combine": timings.combine,
        "sample": timings.sample,
    }


def report(done: Generation, max_tokens: int) -> str:
    """Return one line: tokens, tokens per second, and where the time went."""
    total = done.timings.total or 1.0
    shares = ", ".join(f"{part} {t / total:.0%}" for part, t in times(done.timings).items())
    tested = done.drafts_tested
    drafts = f"drafts {done.drafts_accepted}/{tested} right" if tested else ""
    speed = f"{done.tokens_per_second:.1f} tokens/s" if done.tokens_per_second else ""
    tokens = counted(len(done.tokens), "token")
    parts = (tokens, speed, shares, drafts, ending(done, max_tokens))
    return " · ".join(part for part in parts if part)


def ending(done: Generation, max_tokens: int) -> str:
    """Return how a reply of at most `max_tokens` ended, if more was to come; else ""."""
    at = f"max_tokens ({max_tokens})" if len(done.tokens) >= max_tokens else "the context's end"
    ends = {"length": f"cut at {at}", "cancelled": "stopped"}
    return ends.get(done.finish_reason, "")


@contextlib.contextmanager
def interruptible(emulator: Emulator) -> Iterator[list[int]]:
    """Let Ctrl-C inside the block stop the decode under way. Yields the list of the presses.

    Python runs signal handlers between its own instructions, so during a long decode only the
    wake-up file descriptor tells at once, and a thread that waits for it.
    """
    presses: list[int] = []
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as a script's & sets it
    if ignored or threading.current_thread() is not threading.main_thread():
        yield presses
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while numbers := reader.recv(16):
            if signal.SIGINT in numbers:
                emulator.interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    handler = signal.signal(signal.SIGINT, lambda *_: presses.append(1))
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield presses
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
        writer.close()
        watcher.join()
        reader.close()
        emulator.resume()


@contextlib.contextmanager
def stoppable(emulator: Emulator) -> Iterator[None]:
    """Let Ctrl-C inside the block stop the decode under way and then raise KeyboardInterrupt."""
    with interruptible(emulator) as presses:
        try:
            yield
        except AbortedError:
            if not presses:
                raise
    if presses:
        raise KeyboardInterrupt


def stream(emulator: Emulator, reply: ReplyBuilder, show: Callable[[str], None] | None) -> int:
    """Stream a reply to `show`; None: it is not shown as it comes. Returns the presses of Ctrl-C.

    After Ctrl-C the steps that are there are still taken, so that reply and emulator agree on it.
    """
    with (
        waiting(emulator) as display,
        interruptible(emulator) as presses,
        contextlib.suppress(AbortedError),
    ):
        for n, step in enumerate(emulator.stream(reply.request), 1):
            if show is None:
                display.speaks(n)
            else:
                display.close()
                show(step.text)
            reply.take(step)
    return len(presses)


def side_by_side(answers: Mapping[str, tuple[Request, Generation]]) -> str:
    """Return replies in columns with their speeds; one below the other where columns get narrow."""
    from .console import rendered, text
    from .tables import Column, Listing

    texts = [text(tidy(done.text) or "(nothing)") for _, done in answers.values()]
    notes = [
        text(
            counted(len(done.tokens), "token")
            + (f" · {done.tokens_per_second:.1f}/s" if done.tokens_per_second else ""),
            "dim",
        )
        for _, done in answers.values()
    ]
    if terminal_width() < (_LEAST_COLUMN + 2) * len(answers) - 2:
        parts = zip((text(way, "bold") for way in answers), texts, notes, strict=True)
        lines = [each for part in parts for each in (*part, text(""))]
        return rendered(*lines[:-1])
    listing = Listing(*(Column(way, least=_LEAST_COLUMN) for way in answers))
    listing.add(*texts)
    listing.add(*notes)
    return rendered(listing)


def compare(emulator: Emulator, request: Request) -> dict[str, tuple[Request, Generation]]:
    """Give the same request to the base alone, each tuned model in use alone, and the emulation."""
    weights = request.weights if request.weights.role is None else Weights()
    emulated = replace(request, weights=weights)
    roles = [r for r in weights.coefficients(emulator.deltas) if r.startswith("tuned:")]
    used = [r for r in roles if weights.coefficients(emulator.deltas)[r]] or roles[:1]
    alone = replace(request, conservative=None)
    ways = {"base": alone.with_weights(Weights.only("base"))}
    for role in used:
        ways[role if len(roles) > 1 else "tuned"] = alone.with_weights(Weights.only(role))
    ways["emulated"] = emulated
    replies = {way: ReplyBuilder(asked) for way, asked in ways.items()}
    with waiting(emulator) as display, stoppable(emulator):
        for i, (way, asked) in enumerate(ways.items(), 1):
            display.thinks(f"{way} ({i} of {len(ways)})")
            for n, step in enumerate(emulator.stream(asked), 1):
                display.speaks(n)
                replies[way].take(step)
    return {way: (asked, replies[way].generation()) for way, asked in ways.items()}
