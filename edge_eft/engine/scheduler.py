"""Which request runs in which slot, which wait for one, and how each of them ends.

The only place that sets a request's `status`, `slot` and `outcome`. It knows nothing of models.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from ..errors import EngineError, RequestError
from .reply import FinishReason, Step
from .request_state import RequestState


class Scheduler:
    """Requests in work, in the order of their ids.

    A request waits, runs in a slot, and ends; then its slot is free, and it stays in work until
    its last step is given out.

    Args:
        n_slots: how many can run at once.
        kept: (request, slot) → the share of what the slot's caches hold that its prompts keep.
    """

    def __init__(self, n_slots: int, kept: Callable[[RequestState, int], float]) -> None:
        self.n_slots = n_slots
        self._kept = kept
        self._requests: dict[int, RequestState] = {}
        self._slots = OrderedDict.fromkeys(range(n_slots))  # the longest unused first

    def __iter__(self) -> Iterator[RequestState]:
        """All requests in work."""
        return iter(list(self._requests.values()))

    def __contains__(self, state: RequestState) -> bool:
        return self._requests.get(state.id) is state

    def submit(self, state: RequestState) -> None:
        """Let a request wait for a slot."""
        self._requests[state.id] = state

    def admit(self) -> list[RequestState]:
        """Give the free slots to requests that wait. Returns those that run."""
        running = self._running()
        if len(running) < self.n_slots:
            for state in self._requests.values():
                if state.status == "waiting":
                    self.place(state)
                    running.append(state)
                    if len(running) == self.n_slots:
                        break
        return running

    def place(self, state: RequestState) -> None:
        """Let a request run in the slot whose caches it continues, else the one longest unused.

        Every chat shares its first tokens with every other, so a slot is only taken for what it
        holds if the request keeps at least half of that.

        Raises:
            EngineError: no slot is free.
        """
        # Which slots are free follows from the requests: an interrupt can leave nothing taken.
        taken = {other.slot for other in self._running()}
        free = [slot for slot in self._slots if slot not in taken]
        if not free:
            raise EngineError(f"all {self.n_slots} slots are in use; step or cancel requests first")
        slot = free[0]
        if len(free) > 1:
            shares = {one: self._kept(state, one) for one in free}
            best = max(free, key=lambda one: shares[one])
            slot = best if shares[best] >= 0.5 else slot
        self._slots.move_to_end(slot)
        state.slot, state.status = slot, "running"

    def _running(self) -> list[RequestState]:
        running = (state for state in self._requests.values() if state.status == "running")
        return list(islice(running, self.n_slots))

    def find(self, request_id: int) -> RequestState:
        """Return a request in work.

        Raises:
            RequestError: it is not in work.
        """
        if request_id not in self._requests:
            raise RequestError(f"no request {request_id} is in work")
        return self._requests[request_id]

    def note(self, state: RequestState, step: Step) -> None:
        """Keep a step for the reader; the last one ends the request."""
        state.pending.append(step)
        if step.finish_reason:
            self.end(state, step.finish_reason)

    def end(self, state: RequestState, outcome: FinishReason | EngineError) -> None:
        """End a request, but for what is pending; its slot is free."""
        state.status, state.outcome = "ended", outcome

    def give_out(self, state: RequestState) -> Iterator[Step]:
        """Yield the pending steps. With the last of an ended request it is no longer in work."""
        while state.pending:
            step = state.pending.popleft()
            if step.finish_reason:
                self.forget(state)
            yield step

    def raise_failure(self, state: RequestState) -> None:
        """Raise what a request failed with, once its steps are given out.

        Raises:
            EngineError: the failure. The request is no longer in work.
        """
        if isinstance(state.outcome, EngineError) and not state.pending:
            self.forget(state)
            raise state.outcome

    def retract(self, state: RequestState) -> None:
        """Drop the pending steps. A request that had ended in them waits for a slot again."""
        state.retract()
        if state.status == "ended":
            state.status, state.outcome = "waiting", None

    def forget(self, state: RequestState) -> None:
        """Take a request out of work."""
        self._requests.pop(state.id, None)
