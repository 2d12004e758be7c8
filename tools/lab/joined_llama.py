"""What one would write without edge_eft: three `llama_cpp.Llama` joined by a logits processor.

Only llama-cpp-python's public, high-level API is used, as its documentation shows it: the base
generates, and at each token a processor evaluates the new token on the two small models and adds
the difference of their scores. For comparison only.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# It sets defaults of the environment, which must be there before llama_cpp loads its libraries.
from edge_eft.backend.library import KV_TYPES, CacheKind

# isort: split
import llama_cpp as L  # noqa: N812


class PeerPrompts(NamedTuple):
    """The prompt's token ids for each model."""

    base: Sequence[int]
    tuned: Sequence[int]
    reference: Sequence[int]


class Peers:
    """base + (tuned − reference), greedy.

    Args:
        base, tuned, reference: GGUF files; loaded once more, apart from any `Model`.
        n_ctx: tokens.
        n_threads: of every decode; the class's own default would take half of the cores.
        n_gpu_layers: of every model; None: all.
        cache: given to all three, so that the logits are those of an emulator with the same
            cache and the tokens can be compared.
    """

    def __init__(
        self,
        base: str | os.PathLike[str],
        tuned: str | os.PathLike[str],
        reference: str | os.PathLike[str],
        *,
        n_ctx: int,
        n_threads: int,
        n_gpu_layers: int | None,
        cache: CacheKind,
    ) -> None:
        def load(path: str | os.PathLike[str], **options: Any) -> L.Llama:
            kind = KV_TYPES[cache.kv_type]
            return L.Llama(
                os.fspath(path),
                n_ctx=n_ctx,
                n_threads=n_threads,
                n_threads_batch=n_threads,
                n_gpu_layers=-1 if n_gpu_layers is None else n_gpu_layers,
                flash_attn=cache.flash_attn,
                type_k=kind,
                type_v=kind,
                verbose=False,
                **options,
            )

        self._base = load(base)
        # The class keeps scores for reading only if it keeps them of all tokens.
        self._tuned = load(tuned, logits_all=True)
        self._reference = load(reference, logits_all=True)
        self._ends = {self._base.token_eos(), self._tuned.token_eos()}

    def stream(self, prompts: PeerPrompts) -> Generator[int, None, None]:
        """Yield token ids, the end token included; it never stops by itself otherwise."""
        tuned, reference = self._tuned, self._reference
        n_evaluated = len(prompts.base)
        tuned.reset()
        reference.reset()
        tuned.eval(list(prompts.tuned))
        reference.eval(list(prompts.reference))

        def add_delta(ids: NDArray[np.intc], scores: NDArray[np.single]) -> NDArray[np.single]:
            nonlocal n_evaluated
            new = ids[n_evaluated:].tolist()
            if new:
                tuned.eval(new)
                reference.eval(new)
                n_evaluated = len(ids)
            delta = tuned.scores[tuned.n_tokens - 1] - reference.scores[reference.n_tokens - 1]
            return scores + delta[: len(scores)]

        processors = L.LogitsProcessorList([add_delta])
        for token in self._base.generate(list(prompts.base), temp=0.0, logits_processor=processors):
            yield token
            if token in self._ends:
                return

    def close(self) -> None:
        """Free the models."""
        for model in (self._base, self._tuned, self._reference):
            model.close()
