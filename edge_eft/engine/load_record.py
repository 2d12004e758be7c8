"""What was decided while a recipe was loaded, and why: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..backend import CacheKind
from ..files.hub_file import HubFile
from ..files.memory import MemoryEstimate
from ..files.recipe import Sha256
from ..text.vocabulary import CommonVocabulary


@dataclass(frozen=True)
class LoadedFile:
    """The file of one role: what it is, and how its model is told a prompt.

    Attributes:
        path: the model (of a split one the first part), or the LoRA adapter that makes it the
            tuned one.
        on: the model that an adapter is put on; None without one.
        n_bytes, n_parameters, quantisation, architecture, n_ctx_train: from its header.
        sha256, source: as the recipe states them.
        prompt: the prompt format; `template_sha256` of its Jinja source, if it has one.
        end_tokens: id → text of the tokens that end the role's replies.
    """

    path: Path
    on: Path | None
    n_bytes: int
    n_parameters: int
    quantisation: str
    architecture: str
    n_ctx_train: int
    sha256: Sha256 | None
    source: str | HubFile | None
    prompt: str
    template_sha256: str | None
    end_tokens: Mapping[int, str]


@dataclass(frozen=True)
class LoadRecord:
    """What was decided for a recipe on this machine, and why.

    Attributes:
        n_ctx, n_slots: tokens per slot, slots.
        n_threads, threads_reason: of a decode. A matter of the recipe and the machine, not of
            timing: another count may round differently.
        cache, cache_reason: kind of KV cache, one for all roles.
        vocabulary: what the models' vocabularies share.
        memory: the estimate made before loading.
        contexts: the roles that each context serves.
        files: role → its file.
        warnings: lines for the user, which were also logged: what may not be meant, and what is
            not as it was asked for; `vocabulary` has its own.
    """

    n_ctx: int
    n_slots: int
    n_threads: int
    threads_reason: str
    cache: CacheKind
    cache_reason: str
    vocabulary: CommonVocabulary
    memory: MemoryEstimate
    contexts: tuple[tuple[str, ...], ...]
    files: Mapping[str, LoadedFile]
    warnings: tuple[str, ...]
