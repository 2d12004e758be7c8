"""Which request runs in which slot, which wait for one, and how each of them ends.

The only place that sets a request's `status`, `slot` and `outcome`. It knows nothing of models.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ..errors import EngineError, RequestError
from ..validate import kind
from .reply import FinishReason, Step
from .request_state import RequestState


class Scheduler:
    """Requests in work, in the order of their ids.

    A request waits, runs in a slot, and ends; then its slot is free, and it stays in work until
    its last step is given out. One that pauses may have to wait once more.

    Args:
        n_slots: how many can run at once.
        kept: (request, slot) → the share of what the slot's caches hold that its prompts keep.
    """

    def __init__(self, n_slots: int, kept: Callable[[RequestState, int], float]) -> None:
        self.n_slots = n_slots
        self._kept = kept
        self._requests: dict[int, RequestState] = {}
        self._pending: dict[int, list[Step]] = {}  # by request: chosen and not yet given out
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
        """Give slots to requests that wait. Returns those that run and do not pause.

        A request that pauses makes room where no slot is free, the oldest first, and waits for
        one when it goes on: a reader that stalls costs nobody else a slot.
        """
        running = self._running()
        for state in self._requests.values():
            if state.status != "waiting" or state.paused:
                continue
            if len(running) == self.n_slots:
                idle = next((other for other in running if other.paused), None)
                if idle is None:
                    break
                idle.status, idle.catches_up = "waiting", True
                running.remove(idle)
            self.place(state)
            running.append(state)
        return [state for state in running if not state.paused]

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
        state.slot, state.status, state.near = slot, "running", False

    def _running(self) -> list[RequestState]:
        running = (state for state in self._requests.values() if state.status == "running")
        return list(islice(running, self.n_slots))

    def find(self, request_id: int) -> RequestState:
        """Return a request in work.

        Raises:
            RequestError: it is not in work.
        """
        state = self.get(request_id)
        if state is None:
            raise RequestError(f"no request {request_id} is in work")
        return state

    def find_all(self, request_ids: Iterable[int]) -> dict[int, RequestState]:
        """Return requests in work by their ids, ascending; raises as `find`."""
        kind("request_ids", request_ids, Iterable, "what submit returned, several times")
        found = {state.id: state for state in map(self.find, request_ids)}
        return dict(sorted(found.items()))

    def get(self, request_id: int) -> RequestState | None:
        """Return a request if it is in work. Raises RequestError if it is no request's id."""
        kind("request_id", request_id, int, "what submit returned")
        return self._requests.get(request_id)

    def note(self, state: RequestState, step: Step) -> None:
        """Keep a step for the reader; the last one ends the request."""
        self._pending.setdefault(state.id, []).append(step)
        state.noted = len(state.tokens)
        if step.finish_reason:
            self.end(state, step.finish_reason)

    def settle(self) -> None:
        """Finish or undo what an exception left half done, such as a KeyboardInterrupt.

        A token of which no step tells is taken back, and will be chosen again.
        """
        for state in self:
            if steps := self._pending.get(state.id):
                state.noted = steps[-1].index + (not steps[-1].is_end_token)
                if steps[-1].finish_reason:
                    self.end(state, steps[-1].finish_reason)
            state.cut()

    def end(self, state: RequestState, outcome: FinishReason | EngineError) -> None:
        """End a request, but for what is pending; its slot is free."""
        state.status, state.outcome = "ended", outcome

    @property
    def busy(self) -> bool:
        """Whether a request that is not paused is in work."""
        return any(not state.paused for state in self._requests.values())

    @property
    def pending(self) -> bool:
        """Whether steps of any request are still to be given out, but for those that pause."""
        return any(steps and not self._pauses(i) for i, steps in self._pending.items())

    def _pauses(self, request_id: int) -> bool:
        state = self._requests.get(request_id)
        return state is not None and state.paused

    def has_pending(self, state: RequestState) -> bool:
        """Whether steps of a request are still to be given out."""
        return bool(self._pending.get(state.id))

    def n_given(self, state: RequestState) -> int:
        """Return how many tokens of a reply were given out, those that the request brought too."""
        steps = self._pending.get(state.id)
        return steps[0].index if steps else len(state.tokens)

    def give_out(self, state: RequestState) -> Iterator[Step]:
        """Yield the pending steps. With the last of an ended request it is no longer in work."""
        while steps := self._pending.get(state.id):
            step = steps.pop(0)
            if step.finish_reason:
                self.forget(state.id)
            yield step

    def give_out_all(self) -> list[Step]:
        """Return the pending steps of all requests that do not pause, in the order of ids."""
        kept = {i: steps for i, steps in self._pending.items() if self._pauses(i)}
        steps = [step for i, one in sorted(self._pending.items()) if i not in kept for step in one]
        for step in steps:
            if step.finish_reason:
                self._requests.pop(step.request_id, None)
        # Until here an interrupt loses nothing: what is pending is given out by the next call. No
        # signal is looked at between a store and a return.
        self._pending = kept
        return steps

    def raise_failures(self) -> None:
        """As `raise_failure`, of the first request that has failed."""
        for state in self._requests.values():
            if state.outcome is not None and not state.paused:
                self.raise_failure(state)

    def raise_failure(self, state: RequestState) -> None:
        """Raise what a request failed with, once its steps are given out.

        Raises:
            EngineError: the failure, with its `request_id`. The request is no longer in work.
        """
        if isinstance(state.outcome, EngineError) and not self.has_pending(state):
            state.outcome.request_id = state.id
            self._pending.pop(state.id, None)
            del self._requests[state.id]  # and no call between this and the next line, as above
            raise state.outcome

    def retract(self, state: RequestState) -> None:
        """Drop the pending steps. A request that had ended in them waits for a slot again."""
        if steps := self._pending.get(state.id):
            state.noted = steps[0].index
            del self._pending[state.id]
            state.cut()
            if state.status == "ended":
                state.status, state.outcome = "waiting", None

    def forget(self, request_id: int) -> None:
        """Take a request out of work, with what is pending of it."""
        self._requests.pop(request_id, None)
        self._pending.pop(request_id, None)

    def forget_all(self) -> None:
        """End all requests, and take them out of work."""
        for state in self:
            self.end(state, "cancelled")
            self.forget(state.id)
