"""Tokens → text that is safe to show: whole characters, no part of a stop string, no escapes.

`TextStream` turns the bytes of tokens into text as they come; `ControlFilter` makes text harmless
for a terminal. Both keep state, so that what straddles two tokens is seen whole. This module knows
nothing of models: a token is a number with bytes.
"""

import codecs
import re
from collections.abc import Callable, Sequence

from .errors import RequestError


class TextStream:
    """The text of one reply, token by token.

    The reply ends before the stop string that is complete first; of two that are complete at the
    same character, before the one that begins earlier. So the text depends only on the characters
    and not on how tokens cut them. Text that may turn out to begin a stop string is held back.
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
        self.finished = False
        self._piece = piece
        self._stop = tuple(dict.fromkeys(stop))
        self._longest = max(map(len, self._stop), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown: list[str] = []
        self._held = ""

    def push(self, token: int) -> str:
        """Take one token. Returns the text that can be shown now, "" once finished."""
        if self.finished:
            return ""
        return self._take(self._decoder.decode(self._piece(token)))

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

    @property
    def text(self) -> str:
        """All that has been returned so far."""
        self._shown = ["".join(self._shown)]
        return self._shown[0]

    def _take(self, new: str) -> str:
        if not self._stop:
            self._shown.append(new)
            return new
        # The held text is the longest tail that a stop string begins with, hence every stop string
        # that is complete only now lies within `pending`.
        pending = self._held + new
        found = [(i + len(s), i) for s in self._stop if (i := pending.find(s)) >= 0]
        if found:
            self.finished = True
            shown, self._held = pending[: min(found)[1]], ""
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


# C0, DEL and C1 except \n and \t; the bidirectional embeddings, overrides and isolates, which can
# make text read as what it is not (CVE-2021-42574); surrogates, which no terminal can be sent.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ESC, _CSI = "\x1b", "\x9b"
_STRING_AFTER_ESC = "PX]^_"  # DCS, SOS, OSC, PM, APC; their C1 forms next (ECMA-48, 5.3)
_STRING_C1 = "\x90\x98\x9d\x9e\x9f"


class ControlFilter:
    """Drops control characters and terminal sequences from text that comes in chunks.

    Without their introducers the remains of a sequence are harmless, but they are not text either,
    so whole sequences go: ESC and its final character, CSI with its parameters, and the strings
    OSC, DCS, SOS, PM and APC up to their end (BEL, ST) or the end of the line, so that a lone
    introducer does not swallow the rest of a reply.
    """

    def __init__(self) -> None:
        self._state = "text"

    def filter(self, text: str) -> str:
        """Return the harmless part of `text`, the next chunk of the stream."""
        if self._state == "text" and not _UNSAFE.search(text):
            return text
        return "".join(c for c in text if self._keep(c))

    def _keep(self, c: str) -> bool:
        """Move on by one character. Returns whether it is text."""
        state, self._state = self._state, "text"
        if c == _ESC:
            self._state = "string-esc" if state.startswith("string") else "escape"
        elif c == _CSI:
            self._state = "csi"
        elif c in _STRING_C1:
            self._state = "string"
        elif state == "string-esc" and c == "\\":
            pass
        elif state.startswith("string") and c not in "\n\x07\x9c":
            self._state = "string"
        elif state == "escape" and c == "[":
            self._state = "csi"
        elif state == "escape" and c in _STRING_AFTER_ESC:
            self._state = "string"
        elif state == "escape" and " " <= c <= "/":
            self._state = "escape"
        elif state == "csi" and " " <= c <= "?":
            self._state = "csi"
        elif state in ("escape", "csi") and " " <= c <= "~":
            pass  # the final character of the sequence
        else:
            return not _UNSAFE.match(c)
        return False
