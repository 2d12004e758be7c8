"""Can these models be combined, and which token ends a reply.

The rows of all roles are added up id by id, so an id must mean the same token to all of them, over
the common width. This module compares what the models say of their tokens and knows nothing of
logits: it hands the combiner the width, the end tokens of each role and the ids to mask.

An id falls into one of three cases, each role compared with the base:

- The texts agree: one token, whatever types the converters wrote. The type decides only how a
  role's own prompt is tokenised and whether the token prints; a token that is a control token in
  one file and text in another is usable, and reported.
- The texts differ, and neither file says that the token is text a model writes (normal or byte):
  a fine-tune renamed a reserved token or filled a padding. The id is masked and reported.
- The texts differ otherwise: not the same vocabulary, `VocabularyError`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from ..errors import RecipeError, RequestError, VocabularyError

# Bits of llama_token_attr (llama.h); those above say how to tokenise, not what the token is.
UNKNOWN, NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 4, 8, 16, 32
_KIND = 0b111111
_WRITTEN = NORMAL | BYTE
_SILENT = UNKNOWN | CONTROL  # llama.cpp prints nothing for them

_SHOWN = 5


class VocabularySource(Protocol):
    """What is asked of a model here; `backend.Model` is one."""

    name: str
    n_vocab: int
    end_tokens: frozenset[int]
    eos_token: int | None

    def token_texts(self) -> list[bytes]: ...

    def token_attributes(self) -> np.ndarray: ...

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]: ...


@dataclass(frozen=True)
class CommonVocabulary:
    """What the roles of one emulation share.

    Attributes:
        n_vocab: width of the combined row, the smallest of the roles' widths.
        end_token: the id below `n_vocab` that stands for the end of a reply; None if no role has
            an end token there, and then no reply ends by itself.
        end_tokens: role → (n,) int32, the ids whose probability the role adds up into the end
            slot. Below the role's own width, which may be above `n_vocab`. Never empty unless
            `end_token` is None: a role without end tokens gives the slot its own value there.
        masked: (n,) int32, ids below `n_vocab` that are −inf in the combined row: the roles' end
            tokens except `end_token`, and the ids that mean different tokens.
        silent: text → the ids, below `n_vocab`, of the tokens that print nothing and have this text
            in a role's vocabulary: control tokens. A stop string can name one.
        warnings: lines for the user.
    """

    n_vocab: int
    end_token: int | None
    end_tokens: dict[str, np.ndarray]
    masked: np.ndarray
    silent: Mapping[str, frozenset[int]]
    warnings: tuple[str, ...]

    def ends_of(self, role: str) -> list[int]:
        """Return the ids that end a role's replies, ascending."""
        ids: list[int] = self.end_tokens[role].tolist()
        return ids

    def silent_tokens(self, texts: Iterable[str]) -> frozenset[int]:
        """Return the ids of the tokens that print nothing and have one of these texts."""
        return frozenset(i for text in texts for i in self.silent.get(text, ()))

    def slot_of(self, token: int) -> int:
        """Return a token's place in the combined row: every role's end ids mean the end slot.

        Raises:
            RequestError: it has no place there.
        """
        if any(token in ids for ids in self.end_tokens.values()) and self.end_token is not None:
            return self.end_token
        if not 0 <= token < self.n_vocab:
            raise RequestError(f"token {token} is outside 0 … {self.n_vocab - 1}")
        return token


def named_tokens(names: Sequence[str | int], model: VocabularySource, where: str) -> frozenset[int]:
    """Return the ids of tokens that a recipe names.

    Args:
        names: ids, or texts: the vocabulary's own ("<|im_end|>", "▁the"), or one that is tokenised
            as this one token (" the").
        model: whose tokens.
        where: the key, for messages.

    Raises:
        RecipeError: an id is out of range, or a text is not one token.
    """
    ids = set()
    for name in names:
        if isinstance(name, int):
            if not 0 <= name < model.n_vocab:
                last = model.n_vocab - 1
                raise RecipeError(
                    f"{where} names token {name}; the ids of {model.name} end at {last}"
                )
            ids.add(name)
            continue
        text = name.encode("utf-8", "surrogatepass")
        same = [i for i, other in enumerate(model.token_texts()) if other == text]
        found = same or model.tokenize(name, parse_special=True)
        if not same and (len(found) != 1 or model.token_attributes()[found[0]] & UNKNOWN):
            raise RecipeError(
                f"{where} names {name!r}, which is not one token of {model.name} but {len(found)}; "
                "name each token by its text in the vocabulary, or by its id"
            )
        ids.update(found)
    return frozenset(ids)


def reconcile(
    models: Mapping[str, VocabularySource],
    more_ends: Mapping[str, frozenset[int]] = MappingProxyType({}),
) -> CommonVocabulary:
    """Compare the vocabularies of the roles and settle what they share.

    Args:
        models: role → its model, the base first. Roles may share one model.
        more_ends: role → ids that end its replies as well as those that its model names.

    Raises:
        VocabularyError: a model has no tokens, or an id is a normal token in one model and
            another token in a second one; the message names the first such id.
    """
    for role, model in models.items():
        if model.n_vocab <= 0:
            raise VocabularyError(
                f"{role} ({model.name}) has no vocabulary; use a GGUF file that carries its "
                f"tokenizer"
            )
    n_vocab = min(model.n_vocab for model in models.values())
    renamed, warnings = _compare_with_base(models, n_vocab)

    ends = {
        role: model.end_tokens | more_ends.get(role, frozenset()) for role, model in models.items()
    }
    end_token = _end_slot(next(iter(models.values())).eos_token, ends, n_vocab)
    end_tokens: dict[str, np.ndarray] = {}
    for role, model in models.items():
        ids = sorted(ends[role])
        if not ids and end_token is not None:
            ids = [end_token]
            warnings.append(f"{role} ({model.name}) names no end token; {end_token} is taken")
        end_tokens[role] = np.array(ids, np.int32)
    if end_token is None:
        warnings.append(
            f"no model has an end token below the common width {n_vocab}: replies end only at a "
            f"stop string or at max_tokens"
        )

    ending = {i for ids in end_tokens.values() for i in ids.tolist() if i < n_vocab}
    masked = np.array(sorted((ending | renamed) - {end_token}), np.int32)
    silent = _silent(models, n_vocab)
    return CommonVocabulary(n_vocab, end_token, end_tokens, masked, silent, tuple(warnings))


def _silent(models: Mapping[str, VocabularySource], n_vocab: int) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    for model in {id(model): model for model in models.values()}.values():
        texts = model.token_texts()
        for i in np.flatnonzero(model.token_attributes()[:n_vocab] & _SILENT).tolist():
            text = texts[i].decode("utf-8", "replace")
            found[text] = found.get(text, frozenset()) | {i}
    return found


def _end_slot(base_eos: int | None, ends: Mapping[str, frozenset[int]], n_vocab: int) -> int | None:
    if base_eos is not None and 0 <= base_eos < n_vocab:
        return base_eos
    for ids in ends.values():
        below = [i for i in ids if i < n_vocab]
        if below:
            return min(below)
    return None


def _compare_with_base(
    models: Mapping[str, VocabularySource], n_vocab: int
) -> tuple[set[int], list[str]]:
    """Return the ids that mean different tokens, and a warning for each role that has any."""
    (base_role, base), *others = models.items()
    renamed: set[int] = set()
    warnings: list[str] = []
    compared = {id(base)}
    for role, model in others:
        if id(model) in compared:
            continue
        compared.add(id(model))
        pair = f"{base_role} ({base.name}) and {role} ({model.name})"
        ids, lines = _compare(pair, base, model, n_vocab)
        renamed |= ids
        warnings += lines
    return renamed, warnings


def _compare(
    pair: str, base: VocabularySource, model: VocabularySource, n_vocab: int
) -> tuple[set[int], list[str]]:
    base_texts, texts = base.token_texts()[:n_vocab], model.token_texts()[:n_vocab]
    base_kinds = base.token_attributes()[:n_vocab] & _KIND
    kinds = model.token_attributes()[:n_vocab] & _KIND
    # One list comparison in C settles the usual case: 262k equal texts in a few ms.
    differing: list[int] = []
    if texts != base_texts:
        differing = [i for i in range(n_vocab) if base_texts[i] != texts[i]]
    warnings = []
    for i in differing:
        if (base_kinds[i] | kinds[i]) & _WRITTEN:
            raise VocabularyError(
                f"{pair} have different vocabularies: token {i} is {_show(base_texts[i])} in the "
                f"one and {_show(texts[i])} in the other ({len(differing)} of {n_vocab} tokens "
                f"differ); use models of one family"
            )
    if differing:
        names = [f"{i} {_show(base_texts[i])} → {_show(texts[i])}" for i in differing[:_SHOWN]]
        warnings.append(
            f"{pair} name reserved tokens differently, which are therefore never generated: "
            f"{_listing(names, len(differing))}"
        )
    retyped = np.flatnonzero((base_kinds ^ kinds) & CONTROL)
    retyped = np.setdiff1d(retyped, np.array(differing, np.int64))
    if len(retyped):
        names = [f"{i} {_show(base_texts[i])}" for i in retyped[:_SHOWN].tolist()]
        warnings.append(
            f"{pair} disagree on what is a control token: {_listing(names, len(retyped))}"
        )
    return set(differing), warnings


def _show(text: bytes) -> str:
    return repr(text.decode("utf-8", "backslashreplace"))


def _listing(names: Sequence[str], n: int) -> str:
    more = f" and {n - len(names)} more" if n > len(names) else ""
    return ", ".join(names) + more
