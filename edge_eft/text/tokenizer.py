"""A model's tokenizer that makes control tokens only where it is told to.

llama.cpp tokenises with special parsing on (any text can become a control token) or off (none can,
in nearly all vocabularies). A prompt needs both: on for the scaffold, off for what people and
models wrote. So the places of control tokens are found here, and the text between them goes to
llama.cpp with special parsing off; on texts without injected control tokens the ids are those of
llama.cpp's own special parsing. User-defined tokens match either way. This module knows nothing of
messages or templates.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import PromptError

if TYPE_CHECKING:
    import numpy as np

# Bits of llama_token_attr (llama.h).
_UNKNOWN, _CONTROL, _LSTRIP, _RSTRIP = 1, 8, 128, 256
_C_SPACE = " \t\n\v\f\r"  # where isspace() of C is true


class TokenizerSource(Protocol):
    """What is asked of a model here; `backend.Model` is one."""

    name: str
    bos_token: int | None
    eos_token: int | None
    add_bos: bool
    chat_template: str | None

    def named_template(self, name: str) -> str | None: ...

    def token_texts(self) -> list[bytes]: ...

    def token_attributes(self) -> "np.ndarray": ...

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]: ...

    def fewest_tokens(self, text: str) -> int: ...

    def piece(self, token: int, *, special: bool = False) -> bytes: ...


class Reply(NamedTuple):
    """A generated reply in a text with stand-ins: one stand-in for it without outer space."""

    before: str
    after: str
    ids: tuple[int, ...]


class Span(NamedTuple):
    """A part of a text that is tokens already: a control token or a reply."""

    start: int
    end: int
    ids: tuple[int, ...]
    is_reply: bool = False


class SafeTokenizer:
    """The tokenizer of one model.

    Args:
        model: whose tokens.
        printed: id → bytes of the tokens that print in replies what they do in another model.
    """

    def __init__(
        self, model: TokenizerSource, printed: Mapping[int, bytes] = MappingProxyType({})
    ) -> None:
        self._model = model
        self.fewest = model.fewest_tokens
        self._printed = printed
        self._attributes = model.token_attributes()
        texts = model.token_texts()
        # With special parsing on, llama.cpp takes unknown tokens by their text too
        # (llama-vocab.cpp, tokenizer_st_partition).
        self._controls: dict[str, int] = {}
        for token in (self._attributes & (_CONTROL | _UNKNOWN)).nonzero()[0].tolist():
            if text := texts[token].decode("utf-8", "ignore"):
                self._controls.setdefault(text, token)
        self._lengths = sorted({len(text) for text in self._controls}, reverse=True)
        firsts = "".join(sorted({text[0] for text in self._controls}))
        self._first = re.compile(f"[{re.escape(firsts)}]" if firsts else "(?!)")
        self.alphabet = {c for text in self._controls for c in text if not c.isspace()}

    def text(self, token: int | None) -> str:
        """Return a token's text as templates write it; "" for no token."""
        return "" if token is None else self._model.token_texts()[token].decode("utf-8", "replace")

    @property
    def control_texts(self) -> frozenset[str]:
        """The texts of all control tokens."""
        return frozenset(self._controls)

    def controls(self, text: str) -> list[Span]:
        """Find the control tokens that `text` spells: the leftmost first, the longest of those."""
        spans: list[Span] = []
        end = 0
        for match in self._first.finditer(text):
            start = match.start()
            if start < end:
                continue
            for n in self._lengths:
                token = self._controls.get(text[start : start + n])
                if token is not None:
                    end = start + n
                    spans.append(Span(start, end, (token,)))
                    break
        return spans

    def hide_controls(self, text: str, hide: Mapping[int, str]) -> str:
        """Return `text` with stand-ins inside the control tokens that it spells."""
        parts, end = [], 0
        for span in self.controls(text):
            parts += [text[end : span.start], text[span.start : span.end].translate(hide)]
            end = span.end
        return "".join([*parts, text[end:]])

    def prints(self, ids: Sequence[int], text: str) -> bool:
        """Return whether a reply's `ids` print exactly `text` and hold no control token."""
        own = [i for i in ids if i not in self._printed]
        pieces = (self._printed.get(i) or self._model.piece(i, special=True) for i in ids)
        return not self._any_control(own) and b"".join(pieces) == text.encode()

    def with_bos(self, ids: list[int]) -> list[int]:
        """Return `ids` with BOS in front if the model adds one and it is not there yet."""
        bos = self._model.bos_token
        if self._model.add_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        if not ids:
            raise PromptError(f"the prompt is empty for {self._model.name}; give it some text")
        return ids

    def assemble(
        self, text: str, show: Mapping[int, str], spliced: Mapping[str, Reply]
    ) -> list[int] | None:
        """Return the ids of a rendered text, or None if a splice cannot be continued exactly.

        Args:
            text: rendered with stand-ins; the control tokens that it spells are the scaffold's.
            show: stand-in → what it stands for.
            spliced: stand-in → the reply that it stands for.
        """
        ids: list[int] = []
        end, continued, strip_next = 0, False, False
        for span in [*self._spans(text, spliced), Span(len(text), len(text), (), True)]:
            attributes = 0 if span.is_reply else self._attributes[span.ids[0]]
            piece = text[end : span.start]
            # As llama.cpp does for tokens that take the white space around them along.
            if strip_next:
                piece = piece.lstrip(_C_SPACE)
            if attributes & _LSTRIP:
                piece = piece.rstrip(_C_SPACE)
            if piece:
                piece_ids = self.ids(piece.translate(show), continued=continued)
                if piece_ids is None:
                    return None
                ids += piece_ids
            ids += span.ids
            end, continued, strip_next = span.end, span.is_reply, bool(attributes & _RSTRIP)
        return ids

    def _spans(self, text: str, spliced: Mapping[str, Reply]) -> list[Span]:
        spans = self.controls(text)
        for match in re.finditer(f"[{''.join(spliced)}]" if spliced else "(?!)", text):
            before, after, ids = spliced[match[0]]
            start, end = match.start() - len(before), match.end() + len(after)
            if text[start : match.start()] == before and text[match.end() : end] == after:
                spans.append(Span(start, end, ids, True))
        spans.sort()
        return [s for i, s in enumerate(spans) if i == 0 or s.start >= spans[i - 1].end]

    def ids(self, text: str, *, continued: bool = False) -> list[int] | None:
        """Return the ids of a text without any control token.

        Args:
            text: what a user, a model or a scaffold wrote.
            continued: no white space is put in front of it; None if the tokenizer cannot do that.

        Raises:
            PromptError: the tokenizer makes a control token of it in any case.
        """
        ids = self._continuation(text) if continued else self._model.tokenize(text)
        if ids is None or not self._any_control(ids):
            return ids
        # SentencePiece merges know no types: in some vocabularies "</" and "s>" become </s>.
        # Cut such texts apart.
        cuts = [0, *(span.start + 1 for span in self.controls(text)), len(text)]
        ids = []
        for start, end in itertools.pairwise(cuts):
            part = text[start:end]
            part_ids = self._continuation(part) if ids or continued else self._model.tokenize(part)
            if part_ids is None or self._any_control(part_ids):
                raise PromptError(
                    f"{self._model.name} turns a text of the messages into a control token: "
                    f"{text[start : end + 20]!r}; leave it out"
                )
            ids += part_ids
        return ids

    def _continuation(self, text: str) -> list[int] | None:
        """Return ids that print exactly `text`: SentencePiece would put a space in front of it."""
        ids = self._model.tokenize(text)
        if self._bytes(ids) == text.encode():
            return ids
        ids = self._model.tokenize(text[1:])
        if self._bytes(ids) == text.encode():
            return ids
        # Let something else have the space: something that does not merge with the text.
        for guard in ("\n", ".", "a"):
            n = len(self._model.tokenize(guard))
            ids = self._model.tokenize(guard + text)[n:]
            if self._bytes(ids) == text.encode():
                return ids
        return None

    def _bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join(self._model.piece(token, special=True) for token in ids)

    def _any_control(self, ids: Sequence[int]) -> bool:
        return bool((self._attributes[list(ids)] & _CONTROL).any())
