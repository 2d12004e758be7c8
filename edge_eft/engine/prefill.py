"""How prompts come into the caches: what is known is copied, what is long comes in chunks.

Whoever reads a reply waits for no more than a chunk of another's prompt. What several prompts
begin with is decoded by the first of them, and copied by the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from ..backend import N_BATCH, common_prefix, gpu_available
from .contexts import Contexts, Targets
from .reply import Timings
from .request_state import RequestState

# Prompt tokens of one block. On CPUs 64 cost no more each than 256 do, and others wait a quarter of
# the time; GPUs want more work at once, and have it done before anyone notices.
CHUNK_CPU, CHUNK_GPU = 64, N_BATCH


class Prefill:
    """Brings requests so near to their next token that a block can do the rest.

    Args:
        contexts: of the emulator.

    Attributes:
        on_progress: told, before each chunk of the first request whose prompt is not read yet, its
            id, how many tokens the context that is furthest behind has of it, and how many there
            are.
    """

    def __init__(self, contexts: Contexts) -> None:
        self.on_progress: Callable[[int, int, int], object] | None = None
        self._contexts = contexts
        self._chunk = CHUNK_GPU if gpu_available() else CHUNK_CPU
        # A copy moves the whole of a slot's cache, whatever it holds.
        self._worth = max(32, contexts.n_ctx // 128)

    def bring_near(self, states: Sequence[RequestState]) -> list[RequestState]:
        """Decode a chunk of what is long.

        Args:
            states: the requests that run.

        Returns:
            Those whose next block decodes no more than a chunk of their prompts, all together.
        """
        far = [state for state in states if state.catches_up or not state.near]
        if not far:
            return list(states)
        left = {state: self._left(state) for state in self._not_waiting(far)}
        first = min(left, key=lambda state: state.id)
        if self.on_progress is not None:
            total = max(len(first.view(i)) for i in first.contexts)
            self.on_progress(first.id, total - left[first], total)
        n_free = self._chunk
        # The first goes on in any case, and else a question does not wait for a document.
        for state in sorted(left, key=lambda state: (state is not first, left[state])):
            state.near = left[state] <= n_free
            if state.near:
                n_free -= left[state]
        if not first.near:
            self._decode(first, max(n_free, self._chunk // 2))
        return [state for state in states if state not in far or (state in left and state.near)]

    def _not_waiting(self, far: Sequence[RequestState]) -> list[RequestState]:
        """The requests that need not wait for what another is about to decode.

        They hold, copied, what the cache has of their prompts.
        """
        going = []
        for n, state in enumerate(far):
            if not any(self._gains(state, i, far[:n]) for i in state.contexts):
                for i in state.contexts:
                    self._copy(state, i)
                if state.cached_tokens is None:
                    first = state.contexts[0]
                    n_held = self._kept(state, first, state.slot)
                    state.cached_tokens = min(n_held, state.prompt_tokens - 1)
                going.append(state)
        return going

    def _gains(self, state: RequestState, i: int, earlier: Sequence[RequestState]) -> bool:
        """Whether earlier requests will decode more of what a context lacks than there is now."""
        if not self._contexts[i].context.can_roll_back:
            return False
        others = [other for other in earlier if i in other.contexts]
        shared = [common_prefix(state.view(i), other.view(i)) for other in others]
        if not shared or max(shared) < self._worth:
            return False
        n_held = max(self._kept(state, i, slot) for slot in range(self._contexts.n_slots))
        return max(shared) - n_held >= self._worth

    def _copy(self, state: RequestState, i: int) -> None:
        """Copy what another slot holds of a prompt, where that is much more than its own does."""
        context = self._contexts[i].context
        if not context.can_roll_back:
            return
        kept = [self._kept(state, i, slot) for slot in range(self._contexts.n_slots)]
        best = max(kept)
        if best - kept[state.slot] >= self._worth:
            context.copy(kept.index(best), state.slot, best)

    def _kept(self, state: RequestState, i: int, slot: int) -> int:
        return self._contexts[i].context.kept(slot, state.view(i))

    def _left(self, state: RequestState) -> int:
        """How many tokens the context that lacks most of them has yet to decode."""
        return max(len(state.view(i)) - self._kept(state, i, state.slot) for i in state.contexts)

    def _decode(self, state: RequestState, n_tokens: int) -> None:
        """Decode so many more tokens of a request in every context, but not its last one."""
        begun = perf_counter()
        self._contexts.start_clock()
        for i in state.contexts:
            view, kept = state.view(i), self._kept(state, i, state.slot)
            n = min(kept + n_tokens, len(view) - 1)
            if n > kept:
                targets: Targets = {state.slot: (view[:n], 1)}
                self._contexts[i].advance(targets)
        seconds = perf_counter() - begun
        state.prefill.add(Timings(prefill=self._contexts.seconds(), total=seconds))
