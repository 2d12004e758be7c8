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

A tuned model may mean what it renamed (marks of thinking, of turns). An id that it *adopts* is
combined as any other and is the tuned model's token, text and type. What ends a reply of any role
stays an end token all the same: its probability is in the end slot, and can be in one place only.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np

from ..errors import RequestError, VocabularyError

# Bits of llama_token_attr (llama.h); those above say how to tokenise, not what the token is.
UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 2, 4, 8, 16, 32
_SILENT = UNKNOWN | CONTROL  # llama.cpp prints nothing for them
_KIND = 0b111111
_WRITTEN = NORMAL | BYTE
_PADDING = re.compile(rb"\[PAD\d+\]")  # of converters before mid-2024, which typed it as text

_SHOWN = 5
# `adopt` is suggested for so many tokens at most, and for no more than a hundredth of the
# vocabulary: a tune renames a few of the marks that it was given (DeepSeek-R1's 7 of Qwen2.5's 22),
# while vocabularies of two families differ in most tokens.
_RENAMED_AT_MOST = 32


class VocabularySource(Protocol):
    """What is asked of a model here; `backend.Model` is one."""

    @property
    def name(self) -> str: ...

    @property
    def n_vocab(self) -> int: ...

    @property
    def end_tokens(self) -> frozenset[int]: ...

    @property
    def eos_token(self) -> int | None: ...

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
            tokens except `end_token`, and `renamed`.
        renamed: the ids that mean different tokens, unless they end the replies of every role.
        silent: text → the ids, below `n_vocab`, of the tokens that print nothing and have this text
            in a role's vocabulary: control tokens. A stop string can name one.
        warnings: lines for the user.
        adopted: id → text, the tuned model's, of the tokens that mean what one tuned model says
            and are something else, or print otherwise, in another. Ascending; no end tokens.
        adopters: id → the role whose token it is, of the same ids.
        widths: role → its own width.
        padding: a line for the user where widths differ and there is nothing but padding above
            `n_vocab`, which is no fault; else "".
    """

    n_vocab: int
    end_token: int | None
    end_tokens: dict[str, np.ndarray]
    masked: np.ndarray
    renamed: frozenset[int]
    silent: Mapping[str, frozenset[int]]
    warnings: tuple[str, ...]
    adopted: Mapping[int, str]
    adopters: Mapping[int, str]
    widths: Mapping[str, int]
    padding: str

    def ends_of(self, role: str) -> list[int]:
        """Return the ids that end a role's replies, ascending."""
        ids: list[int] = self.end_tokens[role].tolist()
        return ids

    def silent_tokens(self, texts: Iterable[str]) -> dict[int, str]:
        """Return id → text of the tokens that print nothing and have one of these texts."""
        return {i: text for text in texts for i in self.silent.get(text, ())}

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


def reconcile(
    models: Mapping[str, VocabularySource],
    more_ends: Mapping[str, frozenset[int]] = MappingProxyType({}),
    adopt: Mapping[str, frozenset[int]] = MappingProxyType({}),
) -> CommonVocabulary:
    """Compare the vocabularies of the roles and settle what they share.

    Args:
        models: role → its model, the base first. Roles may share one model.
        more_ends: role → ids that end its replies as well as those that its model names.
        adopt: tuned role → ids that mean what its model says. What means that to all of them is as
            it is without.

    Raises:
        VocabularyError: a model has no tokens; or an id is a normal token in one model and another
            token in a second one, and is not adopted; or one is adopted that not all models have,
            or that another tuned model means otherwise. The message names the first such id.
    """
    for role, model in models.items():
        if model.n_vocab <= 0:
            raise VocabularyError(
                f"{role} ({model.name}) has no vocabulary; use a GGUF file that carries its "
                f"tokenizer"
            )
    n_vocab = min(model.n_vocab for model in models.values())
    ends = {
        role: model.end_tokens | more_ends.get(role, frozenset()) for role, model in models.items()
    }
    adopters = _adopters(models, adopt, n_vocab)
    renamed, warnings = _compare_with_base(models, n_vocab, adopters, ends)

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
    adopters = {i: role for i, role in sorted(adopters.items()) if i not in ending}
    adopted = {
        i: models[role].token_texts()[i].decode("utf-8", "replace") for i, role in adopters.items()
    }
    return CommonVocabulary(
        n_vocab,
        end_token,
        end_tokens,
        masked,
        frozenset(renamed).difference(frozenset.intersection(*ends.values())),
        _silent(models, n_vocab, adopters),
        tuple(warnings),
        MappingProxyType(adopted),
        MappingProxyType(adopters),
        MappingProxyType({role: model.n_vocab for role, model in models.items()}),
        _padding(models, n_vocab, agree=not renamed and not adopters),
    )


def _adopters(
    models: Mapping[str, VocabularySource], adopt: Mapping[str, frozenset[int]], n_vocab: int
) -> dict[int, str]:
    """Return id → the role that adopts it, of the ids that are not one token to all anyway."""
    adopters: dict[int, str] = {}
    for role, i in ((role, i) for role, ids in adopt.items() for i in sorted(ids)):
        text = models[role].token_texts()[i]
        if i >= n_vocab:
            raise VocabularyError(
                f"{role} ({models[role].name}) adopts token {i} {_show(text)}, and the models "
                f"have the ids up to {n_vocab - 1} in common; leave it out of adopt"
            )
        first = adopters.setdefault(i, role)
        if models[first].token_texts()[i] != text:
            raise _two_meanings(models, i, first, role)
    return {
        i: role
        for i, role in adopters.items()
        if any(_token(model, i) != _token(models[role], i) for model in models.values())
    }


def _token(model: VocabularySource, i: int) -> tuple[bytes, bool]:
    """What a token is to a reader: its text, and whether it prints."""
    return model.token_texts()[i], not model.token_attributes()[i] & _SILENT


def _silent(
    models: Mapping[str, VocabularySource], n_vocab: int, adopters: Mapping[int, str]
) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    for model in {id(model): model for model in models.values()}.values():
        texts = model.token_texts()
        for i in np.flatnonzero(model.token_attributes()[:n_vocab] & _SILENT).tolist():
            if i in adopters and models[adopters[i]] is not model:
                continue
            text = texts[i].decode("utf-8", "replace")
            found[text] = found.get(text, frozenset()) | {i}
    return found


def _padding(models: Mapping[str, VocabularySource], n_vocab: int, *, agree: bool) -> str:
    widths: dict[int, list[str]] = {}
    for role, model in models.items():
        widths.setdefault(model.n_vocab, []).append(role)
        above = np.flatnonzero((model.token_attributes()[n_vocab:] & UNUSED) == 0) + n_vocab
        if not all(_PADDING.fullmatch(model.token_texts()[i]) for i in above.tolist()):
            return ""
    if len(widths) == 1:
        return ""
    listed = ", ".join(f"{' and '.join(roles)} {width:,}" for width, roles in widths.items())
    if agree:
        return f"fine: they differ in padding only ({listed}; the first {n_vocab:,} agree)"
    return f"fine: behind the first {n_vocab:,} they have padding only ({listed})"


def _end_slot(base_eos: int | None, ends: Mapping[str, frozenset[int]], n_vocab: int) -> int | None:
    if base_eos is not None and 0 <= base_eos < n_vocab:
        return base_eos
    for ids in ends.values():
        below = [i for i in ids if i < n_vocab]
        if below:
            return min(below)
    return None


def _compare_with_base(
    models: Mapping[str, VocabularySource],
    n_vocab: int,
    adopters: Mapping[int, str],
    ends: Mapping[str, frozenset[int]],
) -> tuple[set[int], list[str]]:
    """Return the ids that mean different tokens, and warnings for each role that has any."""
    base_role, *others = models
    renamed: set[int] = set()
    warnings: list[str] = []
    compared = {id(models[base_role])}
    for role in others:
        if id(models[role]) in compared:
            continue
        compared.add(id(models[role]))
        ids, lines = _compare(models, role, n_vocab, adopters, ends)
        renamed |= ids
        warnings += lines
    return renamed, warnings


def _compare(
    models: Mapping[str, VocabularySource],
    role: str,
    n_vocab: int,
    adopters: Mapping[int, str],
    ends: Mapping[str, frozenset[int]],
) -> tuple[set[int], list[str]]:
    """Compare a role's tokens with the base's.

    Args:
        models: role → its model, the base first.
        role: which of them.
        n_vocab: so many ids are compared.
        adopters: id → the role whose token it is.
        ends: role → ids that end its replies.

    Returns:
        The ids that mean different tokens and are not adopted, and lines for the user.

    Raises:
        VocabularyError: one of these is a normal token in either model; or an adopted id means a
            third thing in a tuned one.
    """
    base_role = next(iter(models))
    base, model = models[base_role], models[role]
    pair = f"{base_role} ({base.name}) and {role} ({model.name})"
    base_texts, texts = base.token_texts()[:n_vocab], model.token_texts()[:n_vocab]
    base_kinds = base.token_attributes()[:n_vocab] & _KIND
    kinds = model.token_attributes()[:n_vocab] & _KIND
    # One list comparison in C settles the usual case: 262k equal texts in a few ms.
    differing: list[int] = []
    if texts != base_texts:
        differing = [i for i in range(n_vocab) if base_texts[i] != texts[i]]
    written = {i for i in differing if (base_kinds[i] | kinds[i]) & _WRITTEN}
    renamed = [i for i in differing if not _is_adopted(models, role, i, adopters)]

    if refused := [i for i in renamed if i in written]:
        i, n = refused[0], len(differing)
        raise VocabularyError(
            f"{pair} have different vocabularies: token {i} is {_show(base_texts[i])} in the "
            f"one and {_show(texts[i])} in the other ({n} of {n_vocab} tokens differ); use "
            f"models of one family{_or_adopt(models, role, refused, len(renamed))}"
        )
    warnings = []
    if lost := [i for i in renamed if i not in ends[base_role] & ends[role]]:
        names = [f"{i} {_show(base_texts[i])} → {_show(texts[i])}" for i in lost[:_SHOWN]]
        can_be = [i for i in lost if not any(i in ids for ids in ends.values())]
        printed = [i for i in can_be if not kinds[i] & _SILENT]
        warnings.append(
            f"{pair} name reserved tokens differently, which are therefore never generated: "
            f"{_listing(names, len(lost))}"
            f"{_or_adopt(models, role, printed or can_be, len(renamed))}"
        )
    retyped = [
        i
        for i in np.flatnonzero((base_kinds ^ kinds) & CONTROL).tolist()
        if base_texts[i] == texts[i] and i not in adopters
    ]
    if retyped:
        names = [f"{i} {_show(base_texts[i])}" for i in retyped[:_SHOWN]]
        hidden = [i for i in retyped if base_kinds[i] & _SILENT and not kinds[i] & _SILENT]
        warnings.append(
            f"{pair} disagree on what is a control token: {_listing(names, len(retyped))}"
            f"{_or_adopt(models, role, hidden, len(retyped), 'to print them as {} does')}"
        )
    return set(renamed), warnings


def _is_adopted(
    models: Mapping[str, VocabularySource], role: str, i: int, adopters: Mapping[int, str]
) -> bool:
    """Return whether an id in which a role differs from the base is settled by its adoption."""
    if i not in adopters:
        return False
    if models[role].token_texts()[i] == models[adopters[i]].token_texts()[i]:
        return True
    if role.startswith("tuned:"):
        raise _two_meanings(models, i, adopters[i], role)
    # A reference has another name for what is reserved; a word of its own it means.
    return not models[role].token_attributes()[i] & _WRITTEN


def _two_meanings(
    models: Mapping[str, VocabularySource], i: int, adopter: str, other: str
) -> VocabularyError:
    """Return the refusal of an id that one tuned model adopts and another means otherwise."""
    texts = [_show(models[role].token_texts()[i]) for role in (adopter, other)]
    return VocabularyError(
        f"{adopter} ({models[adopter].name}) adopts token {i} as {texts[0]}, which is {texts[1]} "
        f"for {other} ({models[other].name}); a token has one meaning: leave it out of adopt, or "
        f"leave one of the two deltas out"
    )


def _or_adopt(
    models: Mapping[str, VocabularySource],
    role: str,
    ids: Sequence[int],
    n_differing: int,
    what: str = "for tokens that {} renamed and means",
) -> str:
    """Return the advice to adopt these ids of a role, "" where it would be none."""
    base = next(iter(models.values()))
    if not ids or n_differing > min(_RENAMED_AT_MOST, base.n_vocab // 100):
        return ""
    tuned = f"tuned:{role.partition(':')[2]}"
    texts = models[tuned].token_texts() if tuned in models else []
    # A reference may be the one that differs: from a base that was tuned as the tuned model was.
    if not texts or (tuned != role and any(texts[i] != base.token_texts()[i] for i in ids)):
        return ""
    return f"; {what.format(tuned)}, write adopt = {list(ids)} in its table of the recipe"


def _show(text: bytes) -> str:
    """Return a token's text as messages quote it."""
    return repr(text.decode("utf-8", "backslashreplace"))


def _listing(names: Sequence[str], n: int) -> str:
    more = f" and {n - len(names)} more" if n > len(names) else ""
    return ", ".join(names) + more
