"""The bytes of tokens → text as they come: whole characters, and no part of a stop string.

What straddles two tokens is held back until it is whole. This module knows nothing of models: a
token is a number with bytes.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence

from ..errors import RequestError


class TextStream:
    """The text of one reply, token by token.

    The reply ends before the stop string that is complete first; of two that are complete at the
    same character, before the one that begins earlier. So the text depends only on the characters
    and not on how tokens cut them. Text that may turn out to begin a stop string is held back.

    Attributes:
        stopped_by: the stop string that ended the reply; None before, and without one.
    """

    def __init__(self, piece: Callable[[int], bytes], stop: Sequence[str] = ()) -> None:
        """Begin a reply.

        Args:
            piece: the bytes that a token prints.
            stop: strings that end the reply and do not appear in it.

        Raises:
            RequestError: a stop string is empty.
        """
        if any(not s for s in stop):
            raise RequestError("a stop string is empty; leave it out")
        self.stopped_by: str | None = None
        self._piece = piece
        self._stop = tuple(dict.fromkeys(stop))
        self._longest = max(map(len, self._stop), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown: list[str] = []
        self._held = ""

    @property
    def finished(self) -> bool:
        """Whether a stop string has ended the reply."""
        return self.stopped_by is not None

    def push(self, *tokens: int) -> str:
        """Take tokens, one as a rule. Returns the text that can be shown now, "" once finished."""
        if self.finished:
            return ""
        new = self._decoder.decode(b"".join(map(self._piece, tokens)))
        if self._stop:
            return self._take(new)
        self._shown.append(new)
        return new

    def flush(self) -> str:
        """End the reply. Returns what was held back. Bytes of a cut character become U+FFFD."""
        if self.finished:
            return ""
        text = self._take(self._decoder.decode(b"", final=True))
        if self.finished:
            return text
        held, self._held = self._held, ""
        self._shown.append(held)
        return text + held

    def again(self, tokens: Iterable[int]) -> TextStream:
        """Return a new stream of the same kind that has taken these tokens."""
        other = TextStream(self._piece, self._stop)
        other.push(*tokens)
        return other

    @property
    def text(self) -> str:
        """All that has been returned so far."""
        self._shown = ["".join(self._shown)]
        return self._shown[0]

    def _take(self, new: str) -> str:
        # The held text is the longest tail that a stop string begins with, hence every stop string
        # that is complete only now lies within `pending`.
        pending = self._held + new
        found = [(i + len(s), i, s) for s in self._stop if (i := pending.find(s)) >= 0]
        if found:
            _, begin, self.stopped_by = min(found)
            shown, self._held = pending[:begin], ""
        else:
            n_shown = len(pending) - self._n_held(pending)
            shown, self._held = pending[:n_shown], pending[n_shown:]
        self._shown.append(shown)
        return shown

    def _n_held(self, pending: str) -> int:
        for n in range(min(len(pending), self._longest - 1), 0, -1):
            tail = pending[-n:]
            if any(s.startswith(tail) for s in self._stop):
                return n
        return 0
