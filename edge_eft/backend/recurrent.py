"""How far sequences with recurrent layers can go back; attention's cache needs none of it.

A recurrent layer keeps one state, which has no past. llama.cpp keeps on request (`n_rs_seq`) the
states after the last tokens of a decode, and a sequence can go back to one of them, once, before it
goes on. It does not know of how many tokens the decode was, nor whether the state has since been
moved for other sequences, and takes what an earlier decode left for it: logits are then silently
wrong (src/llama-memory-recurrent.cpp, `seq_rm` and `find_slot`). So what can be gone back to is
counted here. For what was decoded token by token a state is copied out beforehand, and put back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .library import L


@dataclass
class _Past:
    """What one sequence can go back to.

    Attributes:
        reach: by how many tokens, out of llama.cpp's own states.
        saved: a copy of its state, of `size` bytes, after `n_saved` tokens; 0: there is none.
    """

    reach: int = 0
    saved: Any = None
    size: int = 0
    n_saved: int = 0


class RecurrentPast:
    """What the sequences of one context can go back to.

    Args:
        context: llama.cpp's.
        n_slots: its sequences.

    Attributes:
        n_rs_seq: by how many tokens a sequence can go back after a decode of more than those.
    """

    def __init__(self, context: Any, n_slots: int) -> None:
        self.n_rs_seq: int = L.llama_n_rs_seq(context)
        self._context = context
        self._pasts = [_Past() for _ in range(n_slots)]

    def reachable(self, sequence: int, n_held: int, n: int, *, unsure: bool) -> int:
        """Return the most tokens, up to `n` of the `n_held`, that a sequence can go on from.

        After a decode that was broken off (`unsure`) only a copy is good.
        """
        past = self._pasts[sequence]
        if n_held - n <= past.reach and not unsure:
            return n
        return past.n_saved if past.n_saved <= n else 0

    def forget_after(self, sequence: int, n: int) -> None:
        """Drop the copy of a sequence's state if it is of more than `n` tokens."""
        if self._pasts[sequence].n_saved > n:
            self._pasts[sequence].n_saved = 0

    def go_back(self, sequence: int, n_held: int, n: int, *, unsure: bool) -> bool:
        """Make `n` of `n_held` tokens the last that a sequence's state has seen.

        They are what `reachable` returned, and the cache is yet to be cut to them.

        Returns:
            Whether that can be; else the whole sequence has to go.
        """
        past = self._pasts[sequence]
        near = n_held - n <= past.reach and not unsure
        past.reach = 0  # a second time it would be to a state that is not there
        return n > 0 and (near or self._put_back(sequence))

    def save(self, sequence: int, n_held: int) -> None:
        """Copy a sequence's state after the `n_held` tokens that it holds."""
        past, only = self._pasts[sequence], L.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        past.n_saved = 0
        if past.saved is None:
            size = L.llama_state_seq_get_size_ext(self._context, sequence, only)
            past.saved = (ctypes.c_uint8 * size)()
        past.size = L.llama_state_seq_get_data_ext(
            self._context, past.saved, len(past.saved), sequence, only
        )
        past.n_saved = n_held if past.size else 0

    def _put_back(self, sequence: int) -> bool:
        past, only = self._pasts[sequence], L.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY
        read = L.llama_state_seq_set_data_ext(self._context, past.saved, past.size, sequence, only)
        return bool(read)

    def decoded(self, sequences: Iterable[int], n_tokens: int) -> None:
        """Note a decode: of `n_tokens` at the least of each sequence.

        One of several sequences may move the states of all, and leaves the older ones behind.
        """
        together = set(sequences)
        if len(together) > 1:
            for past in self._pasts:
                past.reach = 0
        else:
            self._pasts[together.pop()].reach = min(n_tokens - 1, self.n_rs_seq)
