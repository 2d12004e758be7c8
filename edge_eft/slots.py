"""Which request runs in which slot, which wait for one, and which replies are remembered.

Bookkeeping between requests; it knows nothing of models.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from .errors import EngineError, RequestError
from .live import Live
from .request import FinishReason

REMEMBERED_REPLIES = 256


class Slots:
    """Requests in work, in the order of their ids.

    A request waits (no slot), is live (it has one), or has ended with steps that its reader has
    not fetched; then its slot is free already. It is in work until `release`.
    """

    def __init__(self, n_slots: int) -> None:
        self.n_slots = n_slots
        self._requests: dict[int, Live] = {}
        self._used = OrderedDict.fromkeys(range(n_slots))  # the longest unused first

    def __iter__(self) -> Iterator[Live]:
        """All requests in work."""
        return iter(list(self._requests.values()))

    def live(self) -> list[Live]:
        """The requests that have a slot."""
        return [live for live in self if live.slot >= 0]

    def enqueue(self, live: Live) -> None:
        """Let a request wait for a slot."""
        self._requests[live.id] = live

    def admit(self, kept: Callable[[Live, int], float]) -> None:
        """Give the free slots to the requests that wait; `kept` as for `place`."""
        for live in self:
            if live.slot < 0 and not live.ended and self._free():
                self.place(live, kept)

    def place(self, live: Live, kept: Callable[[Live, int], float]) -> None:
        """Give a request the slot whose caches it continues, else the one longest unused.

        Every chat shares its first tokens with every other, so a slot is only taken for what it
        holds if the request keeps at least half of that.

        Args:
            live: a request without a slot.
            kept: (live, slot) → the share of what the slot's caches hold that the prompt keeps.

        Raises:
            EngineError: no slot is free.
        """
        if not (free := self._free()):
            raise EngineError(f"all {self.n_slots} slots are in use; step or cancel requests first")
        shares = {slot: kept(live, slot) for slot in free}
        best = max(free, key=lambda slot: shares[slot])
        live.slot = best if shares[best] >= 0.5 else free[0]
        self._used.move_to_end(live.slot)

    def find(self, request_id: int) -> Live:
        """A request in work; RequestError if it is not."""
        if request_id not in self._requests:
            raise RequestError(f"no request {request_id} is in work")
        return self._requests[request_id]

    def release(self, live: Live, reason: FinishReason) -> None:
        """The request is done with."""
        del self._requests[live.id]
        live.slot, live.finish_reason = -1, reason

    def _free(self) -> list[int]:
        taken = {live.slot for live in self._requests.values()}
        return [slot for slot in self._used if slot not in taken]


class Replies(OrderedDict[str, tuple[int, ...]]):
    """The token ids of the newest replies, by their text.

    A prompt that quotes a reply gets these ids, so that its KV is still good: tokenising the text
    again may give other ids.
    """

    def remember(self, text: str, tokens: Sequence[int], piece: Callable[[int], bytes]) -> None:
        """Keep a reply, unless its text is not what its tokens say (a stop string cut it)."""
        if tokens and b"".join(map(piece, tokens)) == text.encode():
            self[text] = tuple(tokens)
            self.move_to_end(text)
            if len(self) > REMEMBERED_REPLIES:
                self.popitem(last=False)
