"""Readers of one request, or of several, among all that are in work.

They ask for a block where nothing is pending for them; the steps of others stay pending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ..errors import RequestError
from .reply import Generation, ReplyBuilder, Step
from .request_state import RequestState
from .scheduler import Scheduler


def steps_of(
    state: RequestState, scheduler: Scheduler, run_block: Callable[[], None]
) -> Iterator[Step]:
    """Yield the steps of a request until it ends.

    Raises:
        EngineError: it failed. RequestError: it is paused. And what `run_block` raises.
    """
    while state in scheduler:
        if not scheduler.has_pending(state):
            _refuse_paused([state])
            run_block()
        yield from scheduler.give_out(state)
        scheduler.raise_failure(state)


def collect(
    request_ids: Iterable[int],
    scheduler: Scheduler,
    run_block: Callable[[], None],
    cancel: Callable[[int], None],
) -> Iterator[tuple[int, Generation]]:
    """Yield (id, reply) of requests, each as it ends; raises as `steps_of`.

    Those that have not ended when this is closed, or when one of them fails, are cancelled.
    """
    left = scheduler.find_all(request_ids)
    replies = {i: ReplyBuilder(state.request) for i, state in left.items()}
    try:
        while left:
            # Slots are given in the order of ids, so no later ones can have anything.
            going = (state for state in left.values() if not state.paused)
            first = list(islice(going, scheduler.n_slots))
            if not first:
                _refuse_paused(left.values())
            if not any(map(scheduler.has_pending, first)):
                run_block()
            for state in first:
                for step in scheduler.give_out(state):
                    replies[state.id].take(step)
                scheduler.raise_failure(state)
                if state not in scheduler:
                    del left[state.id]
                    yield state.id, replies.pop(state.id).generation()
    finally:
        for i in left:
            cancel(i)


def _refuse_paused(states: Iterable[RequestState]) -> None:
    """Raise RequestError for a request that its reader would wait for without end."""
    for state in states:
        if state.paused:
            raise RequestError(f"request {state.id} is paused; unpause it, then read on")
