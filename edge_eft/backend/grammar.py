"""llama.cpp's grammar sampler: which tokens may come next in a text that a GBNF grammar allows.

llama.cpp aborts the process that lets a grammar accept what it forbids, and reads a token as its
base's piece, control tokens by their text. So a token is looked at before it is accepted, and
those that print something else than llama.cpp reads are never allowed.
"""

from __future__ import annotations

import codecs
import contextlib
import ctypes
import os
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from time import thread_time
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, GrammarError, RequestError
from .library import L, last_error, native
from .model import Model

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
# Seconds of the processor for one token, which takes some 10 µs. An ambiguous grammar can
# double what llama.cpp keeps with every character, and nothing else would end that.
_LONGEST = 0.2
# And for all tokens of a vocabulary, which take some 10 ms.
_LONGEST_MASK = 1.0
# And for all masks of a text that take longer than a look may: others wait meanwhile.
_LONGEST_MASKS = 5.0


class GrammarTokens:
    """The tokens of a vocabulary as grammars see them.

    Args:
        model: whose vocabulary and pieces llama.cpp reads.
        printed: token id → the bytes that it prints in a reply.
        n_vocab: ids of the rows, at most the model's.
    """

    def __init__(self, model: Model, printed: Callable[[int], bytes], n_vocab: int) -> None:
        self.model, self.printed, self.n_vocab = model, printed, n_vocab

    @cached_property
    def usable(self) -> NDArray[np.int32]:
        """(n,) int32 ids that print what llama.cpp reads, and something."""
        read, printed, ends = self.model.piece, self.printed, self.model.end_tokens
        return np.array(
            [
                token
                for token in range(self.n_vocab)
                if (piece := printed(token))
                and piece == read(token, special=True)
                and b"\0" not in piece
                and token not in ends
            ],
            np.int32,
        )

    @cached_property
    def usable_set(self) -> frozenset[int]:
        """`usable`, to look one up."""
        return frozenset(self.usable.tolist())

    @cached_property
    def incomplete(self) -> frozenset[int]:
        """Usable tokens that are not whole characters: what comes before decides on them."""
        return frozenset(t for t in self.usable_set if not _is_utf8(self.printed(t)))


class Grammar:
    """A grammar and how far a text has come in it.

    Args:
        tokens: of the vocabulary.
        text: GBNF with a rule `root`; it must be one on which llama.cpp neither hangs nor runs out
            of memory (`gbnf.check`).
        end_token: ends a reply; it is allowed where the text is complete.
        stops: other ids that do.

    Attributes:
        accepted: the tokens of the text.
        free: gives the memory back; nothing else may be called afterwards.
        guard: of all grammars: entered around what llama.cpp does with them, which nothing but
            the end of the process can end. A process that can be spared sets it.

    Raises:
        RequestError: llama.cpp cannot read the grammar, or the model has no end token.
        EngineError: the model is closed.
    """

    guard: ClassVar[contextlib.AbstractContextManager[object]] = contextlib.nullcontext()

    def __init__(
        self,
        tokens: GrammarTokens,
        text: str,
        end_token: int | None,
        stops: Collection[int] = (),
    ) -> None:
        if not tokens.model.close.alive:
            raise EngineError(f"{tokens.model.name} is closed")
        if not tokens.model.end_tokens or end_token is None:
            raise RequestError(
                f"{tokens.model.name} has no token that ends a reply, which a grammar needs"
            )
        with native("reading a grammar"), _stderr() as said, self.guard:
            data = text.encode("utf-8", "surrogatepass")
            sampler = L.llama_sampler_init_grammar(tokens.model._vocab, data, b"root")
        if not sampler:
            reason = said[0].partition("error parsing grammar: ")[2].split("\n", 1)[0]
            logged = last_error()
            raise RequestError(f"llama.cpp cannot read the grammar: {reason or logged:.200}")
        self._text, self.end_token = text, end_token
        self._ends = frozenset({end_token, *stops})
        self._slow = [0.0]  # seconds of slow masks, of all copies together
        self._hold(tokens, sampler)

    def _hold(self, tokens: GrammarTokens, sampler: Any) -> None:
        self._tokens, self._sampler = tokens, sampler
        self.free = weakref.finalize(self, L.llama_sampler_free, sampler)
        self.accepted: list[int] = []
        self._in_step = True  # whether llama.cpp has been told just what was accepted
        self._cut = b""  # the first bytes of a character that is not whole yet
        self._end = min(tokens.model.end_tokens)
        self._one = np.zeros(1, _CANDIDATE)
        self._one_array = _as_array(self._one)
        self._one_pointer = ctypes.byref(self._one_array)

    def copy(self) -> Grammar:
        """Return a grammar that goes on from here without this one."""
        other = Grammar.__new__(Grammar)
        other._text, other.end_token, other._ends = self._text, self.end_token, self._ends
        other._slow = self._slow
        with self.guard:
            other._hold(self._tokens, L.llama_sampler_clone(self._sampler))
        other.accepted, other._cut = list(self.accepted), self._cut
        return other

    def after(self, tokens: Sequence[int]) -> Grammar:
        """Return the grammar after these tokens, which it has allowed: itself if it is there."""
        if self._in_step and self.accepted == list(tokens):
            return self
        other = Grammar(self._tokens, self._text, self.end_token, self._ends)
        other._slow = self._slow
        for token in tokens:
            other.accept(token)
        return other

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self._look(self._end)

    def allows(self, token: int) -> bool:
        """Whether a token may come next.

        Raises:
            GrammarError: the grammar is so ambiguous that looking takes too long.
        """
        if token in self._ends:
            return self.complete
        if token not in self._tokens.usable_set:
            return False
        return self._look(token) and self._continues(token)

    def mask(self, logits: NDArray[np.float32]) -> bool:
        """Make −inf of what may not come next, in place.

        Args:
            logits: (n_vocab,) float32.

        Returns:
            Whether any token but the ends is left.

        Raises:
            GrammarError: as `allows`.
        """
        ids = self._tokens.usable
        candidates = np.zeros(len(ids), _CANDIDATE)
        candidates["id"], candidates["logit"] = ids, logits[ids]
        self._apply(candidates)
        ends = list(self._ends) if self.complete else []
        kept = logits[ends]
        logits.fill(-np.inf)
        logits[ids] = candidates["logit"]
        for token in self._tokens.incomplete:
            if logits[token] != -np.inf and not self._continues(token):
                logits[token] = -np.inf
        logits[list(self._ends)] = -np.inf
        left = bool(logits.max() > -np.inf)
        logits[ends] = kept
        return left

    def _apply(self, candidates: NDArray[np.void]) -> None:
        """Let llama.cpp look at candidates: at a few first, at more at a time while it is quick.

        Nothing ends it in between, and an ambiguous grammar may take a millisecond for each.
        """
        begin, n, spent = 0, 1, 0.0
        while begin < len(candidates):
            begun = thread_time()
            part = _as_array(candidates[begin : begin + n])
            with self.guard:
                L.llama_sampler_apply(self._sampler, ctypes.byref(part))
            took = thread_time() - begun
            spent += took
            _refuse_long(spent, _LONGEST_MASK)
            begin += n
            n = 2 * n if took < _LONGEST_MASK / 100 else max(1, n // 2)
        if spent > _LONGEST:
            self._slow[0] += spent
            _refuse_long(self._slow[0], _LONGEST_MASKS)

    def accept(self, token: int) -> None:
        """Let the text go on by a token that `allows` has allowed; an end changes nothing.

        Raises:
            GrammarError: as `allows`.
        """
        if token in self._ends:
            return
        self._in_step = False
        begun = thread_time()
        with self.guard:
            L.llama_sampler_accept(self._sampler, token)
        _refuse_long(thread_time() - begun)
        if self._cut or token in self._tokens.incomplete:
            data = self._cut + self._tokens.printed(token)
            self._cut = data[codecs.utf_8_decode(data, "strict", False)[1] :]
        self.accepted.append(token)
        self._in_step = True

    def _look(self, token: int) -> bool:
        """Whether llama.cpp would accept a token."""
        self._one[0] = (token, 0.0, 0.0)
        begun = thread_time()
        with self.guard:
            L.llama_sampler_apply(self._sampler, self._one_pointer)
        _refuse_long(thread_time() - begun)
        return bool(self._one["logit"][0] == 0.0)

    def _continues(self, token: int) -> bool:
        """Whether the bytes of a token, after what came before it, can be UTF-8.

        llama.cpp takes overlong forms for characters; in a reply they print others.
        """
        if not self._cut and token not in self._tokens.incomplete:
            return True
        try:
            codecs.utf_8_decode(self._cut + self._tokens.printed(token), "strict", False)
        except UnicodeDecodeError:
            return False
        return True


def _refuse_long(seconds: float, longest: float = _LONGEST) -> None:
    """Raise GrammarError where a look took too long."""
    if seconds > longest:
        raise GrammarError(
            "the grammar is so ambiguous that llama.cpp takes too long for a token: write it so "
            "that the next character says which alternative it belongs to"
        )


def _as_array(candidates: NDArray[np.void]) -> Any:
    """Return llama.cpp's view of an array of candidates, which must outlive it."""
    array: Any = L.llama_token_data_array()
    array.data = candidates.ctypes.data_as(ctypes.POINTER(L.llama_token_data))
    array.size, array.selected, array.sorted = len(candidates), -1, False
    return array


def _is_utf8(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextlib.contextmanager
def _stderr() -> Iterator[list[str]]:
    """Keep what native code prints, which no log callback gets. Yields a list of that one text."""
    said = [""]
    try:
        saved = os.dup(2)
    except OSError:  # closed
        yield said
        return
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield said
            finally:
                os.dup2(saved, 2)
                file.seek(0)
                said[0] = file.read(4096).decode("utf-8", "replace")
    finally:
        os.close(saved)
