"""Which of the models on this machine make an emulation: trios of base, tuned and reference.

A trio needs one vocabulary, a pair of one shape of which one was tuned from the other, and a larger
model at the other's stage: pre-trained for a pre-trained reference, the maker's own tune for a tune
of that. Names and headers say what was tuned from what; weights are compared only so that no model
is paired with itself. Nothing is loaded, and what each file is, `candidates` has found out.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..errors import ModelFileError, VocabularyError
from ..files.adapter_check import check_adapter_fits
from ..files.batch_invariance import is_batch_invariant
from ..files.gguf_check import GGUFHeader
from ..files.model_names import ModelName
from ..files.recipe import Delta, ModelSpec, Recipe
from ..files.same_weights import same_beginnings
from ..text import vocabulary
from .candidates import BY_TEMPLATE, Candidate
from .kinship import RELATED, STRANGERS, kinship

TIMES_LARGER = 1.5  # than the pair a base is at least, in parameters
# What a pair is taken in, if there is a choice: its errors enter at full weight.
_PAIR_TYPES = ("Q8_0", "BF16", "F16", "F32", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0")

_BY_FILE = "by what its file says"

Variants = tuple[Candidate, ...]  # one model in several quantisations


@dataclass(frozen=True)
class Pair:
    """A tuned model, or an adapter, and what it was tuned from; `why` that is thought."""

    tuned: Candidate
    reference: Candidate
    why: str
    also: Variants


@dataclass(frozen=True)
class Trio:
    """Three files that make an emulation.

    Attributes:
        base, tuned, reference: the files that were chosen; `tuned` may be an adapter.
        why: what says that the tuned model comes from the reference.
        also: other quantisations of the same models that are here.
        memory: bytes that running it takes.
        fits: whether that is free.
    """

    base: Candidate
    tuned: Candidate
    reference: Candidate
    why: str
    also: tuple[Candidate, ...] = ()
    memory: int = 0
    fits: bool = True

    @property
    def ratio(self) -> float:
        """The size of what drafts over the base's: the price of one draft."""
        drafting = self.reference if self.tuned.header.is_adapter else self.tuned
        return drafting.header.n_bytes / max(self.base.header.n_bytes, 1)

    @property
    def is_exact(self) -> bool:
        """Whether drafts keep a text exactly, not only up to rounding."""
        return all(
            is_batch_invariant(each.header) for each in (self.base, self.tuned, self.reference)
        )

    @property
    def one_series(self) -> bool:
        """Whether base and reference are of one series by their names."""
        return self.base.name.series == self.reference.name.series

    def headers(self) -> dict[str, GGUFHeader]:
        """Return role → header, with the roles of `recipe`."""
        tuned = self.reference if self.tuned.header.is_adapter else self.tuned
        return {
            "base": self.base.header,
            "tuned:tuned": tuned.header,
            "reference:tuned": self.reference.header,
        }

    def recipe(self, name: str) -> Recipe:
        """Return the recipe: tuned has its own template, and so have base and reference if tuned.

        A model that would think first is told not to: else the base is moved into thoughts alone.
        """
        base, tuned, reference = (
            ModelSpec(each.path, prompt=prompt, template_kwargs=each.quiet if prompt else {})
            for each, prompt in (
                (self.base, "template" if self.reference.tuned else None),
                (self.reference if self.tuned.header.is_adapter else self.tuned, "template"),
                (self.reference, "template" if self.reference.tuned else None),
            )
        )
        if self.tuned.header.is_adapter:
            tuned = replace(tuned, lora=self.tuned.path)
        delta = Delta("tuned", 1.0, tuned, reference)
        return Recipe(
            name=name,
            description=f"{self.base.title} as {self.tuned.title} over {self.reference.title}",
            license="",
            n_ctx=None,
            base=base,
            deltas=MappingProxyType({delta.name: delta}),
            path=None,
        )


def propose(
    candidates: Sequence[Candidate], memory_of: Callable[[Trio], int], available: int
) -> tuple[list[Trio], list[str]]:
    """Return the trios among `candidates`, the best first, and lines for what is doubtful.

    There is one for each base model and pair, however many quantisations of them are here.

    Args:
        candidates: from `read_candidates`.
        memory_of: the bytes that a trio needs.
        available: the bytes that are free.
    """
    notes: list[str] = []
    models = _models(candidates)
    pairs = [*_pairs(models, notes), *_adapted(candidates, models, notes)]
    trios = []
    for variants in models:
        for pair in _pairs_for(variants[0], pairs):
            trio = _with_base(variants, pair, memory_of, available)
            if is_one_vocabulary(trio):
                trios.append(trio)
    return sorted(trios, key=_rank), notes


def _rank(trio: Trio) -> tuple[object, ...]:
    larger = -trio.base.header.n_parameters
    return not trio.fits, not trio.one_series, larger, trio.ratio, trio.base.title, trio.tuned.title


def _models(candidates: Iterable[Candidate]) -> list[Variants]:
    """Return the models that are no adapters, each as its quantisations."""
    models: dict[tuple[object, ...], list[Candidate]] = defaultdict(list)
    for each in candidates:
        if not each.header.is_adapter:
            models[each.identity].append(each)
    return [tuple(variants) for variants in models.values()]


def _pairs(models: Sequence[Variants], notes: list[str]) -> Iterator[Pair]:
    """Yield each tuned model with that of its shape from which it most likely was tuned."""
    by_shape: dict[tuple[object, ...], list[Variants]] = defaultdict(list)
    for variants in models:
        by_shape[(variants[0].family, variants[0].shape)].append(variants)
    for alike in by_shape.values():
        for tuned in alike:
            others = [other for other in alike if other is not tuned]
            signs = [(*_sign(tuned, other), other) for other in others]
            strength, why, reference = max(signs, key=lambda sign: sign[0], default=(0, "", ()))
            if strength:
                pair = _pair(tuned, reference, why)
                if problem := _problem(pair):
                    notes.append(problem)
                else:
                    yield pair


def _sign(tuned: Variants, other: Variants) -> tuple[float, str]:
    """Return how strongly, and by what, it seems that a model was tuned from another; 0: not."""
    one, reference = tuned[0], other[0]
    if not one.tuned:
        return 0, ""
    if any(_names(made, reference) for each in tuned for made in each.made_from):
        return 3, _BY_FILE
    if reference.tuned:
        return 0, ""
    if one.name.core and one.name.core == reference.name.core:
        # Of several versions the one of the same date or number.
        return 2 + len(one.name.marks & reference.name.marks) / 8, "by their names"
    # A maker's own line may be near another of theirs (a coder model the plain one) and has its own
    # pre-trained model; whoever tunes on gives any name.
    is_makers = one.name.plainly_tuned is not None
    if not is_makers and (kinship(one.header, reference.header) or 0) >= RELATED:
        return 1, "by their weights"
    return 0, ""


def _names(name: ModelName, model: Candidate) -> bool:
    """Return whether a name in a header is this model's."""
    says = name.plainly_tuned if name.tuned is None else name.tuned
    return (
        bool(name.core)
        and name.core in (model.name.core, model.said.core)
        and (not name.sizes or not model.name.sizes or name.sizes == model.name.sizes)
        and (says is None or says == model.tuned)
    )


def _pair(tuned: Variants, reference: Variants, why: str) -> Pair:
    """Choose the files: of one quantisation if there are such, Q8_0 before others."""

    def rank(files: tuple[Candidate, Candidate]) -> tuple[object, ...]:
        a, b = (each.header.quantisation for each in files)
        return a != b and not files[0].header.is_adapter, sum(map(pair_rank, files))

    one, other = min(itertools.product(tuned, reference), key=rank)
    also = tuple(each for each in (*tuned, *reference) if each not in (one, other))
    return Pair(one, other, why, also)


def pair_rank(model: Candidate) -> int:
    """Return how good a file's quantisation is for a pair: 0 for the best."""
    kind = model.header.quantisation
    return _PAIR_TYPES.index(kind) if kind in _PAIR_TYPES else len(_PAIR_TYPES)


def _problem(pair: Pair) -> str:
    """Return why two files are no pair, whatever their names say; "" if nothing speaks for it."""
    one, other = pair.tuned, pair.reference
    files = f"{one.path} and {other.path}"
    try:
        if same_beginnings(one.header, other.header):
            return f"no pair: {files} hold the same weights"
        relation = kinship(one.header, other.header)
    except ModelFileError as error:
        return str(error)
    if relation is not None and relation < STRANGERS:
        return f"no pair: {files} were not tuned from one another, by their weights"
    return ""


def _adapted(
    candidates: Iterable[Candidate], models: Sequence[Variants], notes: list[str]
) -> Iterator[Pair]:
    """Yield each adapter with the model that it was trained on, if that is told or plain."""
    for adapter in candidates:
        if not adapter.header.is_adapter:
            continue
        fitting = [variants for variants in models if _fits(adapter, variants[0])]
        told = [variants for variants in fitting if _told(adapter, variants)]
        chosen = told or fitting
        if len(chosen) == 1:
            why = _BY_FILE if told else "as it fits no other model here"
            yield _pair((adapter,), chosen[0], why)
        else:
            fits = ", ".join(variants[0].title for variants in chosen[:4]) or "no model here"
            notes.append(
                f"{adapter.path}: an adapter that fits {fits}"
                + ("; its file does not say which" if chosen else "; get the one it was made for")
            )


def _fits(adapter: Candidate, model: Candidate) -> bool:
    try:
        check_adapter_fits(adapter.header, model.header)
    except ModelFileError:
        return False
    return True


def _told(adapter: Candidate, variants: Variants) -> bool:
    """Return whether a manifest or the adapter's file says that it is for this model."""
    on = adapter.found.adapter_on
    if on is not None:
        return any(os.path.realpath(each.path) == os.path.realpath(on) for each in variants)
    return any(_names(name, each) for name in adapter.made_from for each in variants)


def _pairs_for(base: Candidate, pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Yield the pairs that a model can be the base of: of its own series, else of its kind."""
    fitting = [pair for pair in pairs if _can_lead(base, pair)]
    own = [pair for pair in fitting if pair.reference.name.core == base.name.core]
    own = [pair for pair in own if _of_version(base, pair)] or own
    near = [pair for pair in fitting if pair.reference.name.series == base.name.series]
    # Another series' pair moves a pre-trained model; a maker's tune has its own manner.
    architecture = base.header.architecture
    yield from (
        own
        or near
        or (
            pair
            for pair in fitting
            if not base.tuned
            and base.why != BY_TEMPLATE  # somebody's merge may have none, too
            and pair.reference.header.architecture == architecture
        )
    )


def _of_version(base: Candidate, pair: Pair) -> bool:
    """Return whether a pair has the version that the base's name states, if it states one."""
    versions = {mark for mark in base.name.marks if mark.startswith("v")}
    return versions <= pair.tuned.name.marks | pair.reference.name.marks


def _can_lead(base: Candidate, pair: Pair) -> bool:
    reference = pair.reference
    return (
        base.family == reference.family
        and base.tuned == reference.tuned
        and base.header.n_parameters >= TIMES_LARGER * reference.header.n_parameters
    )


def _with_base(
    variants: Variants, pair: Pair, memory_of: Callable[[Trio], int], available: int
) -> Trio:
    """Choose the base's file: one that fits, then exact drafts, then the better quantisation."""
    trios = []
    for base in variants:
        also = (*(each for each in variants if each is not base), *pair.also)
        trio = Trio(base, pair.tuned, pair.reference, pair.why, also)
        needed = memory_of(trio)
        trios.append(replace(trio, memory=needed, fits=needed <= available))
    return max(
        trios,
        key=lambda trio: (
            trio.fits,
            trio.fits and trio.is_exact,
            trio.memory * (2 * trio.fits - 1),
        ),
    )


def is_one_vocabulary(trio: Trio) -> bool:
    """Return whether the vocabularies of all three can be combined."""
    sources = {"base": trio.base.vocabulary, "reference": trio.reference.vocabulary}
    sources |= {"tuned": trio.tuned.vocabulary}
    try:
        vocabulary.reconcile({role: each for role, each in sources.items() if each is not None})
    except VocabularyError:
        return False
    return True
