"""From a recipe to its contexts, and one record of what was decided on the way and why.

Models are loaded once per file, so a base that is also a reference, or a tuned model that is the
reference with a LoRA adapter, costs one set of weights. What does not fit together is refused:
pairs (`pairs`) and memory, by an estimate, before anything is loaded, vocabularies when they are.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

from ..backend import (
    CACHE_LADDER,
    CacheKind,
    Context,
    Model,
    default_threads,
    gpu_available,
)
from ..backend.devices import devices
from ..errors import EngineError
from ..files import buffers, memory
from ..files.gguf_check import GGUFHeader, read_header
from ..files.hashes import verify
from ..files.pulled import check_here, told_to_pull
from ..files.recipe import MAX_N_CTX, ModelSpec, Recipe, shared_contexts
from ..files.recipe_vocabulary import reconcile_recipe
from ..text.prompt_format import PromptFormat
from ..validate import checked_call, whole
from . import pairs
from .contexts import ContextRunner, Contexts
from .defaults import default_n_ctx
from .load_record import LoadedFile, LoadRecord
from .request_state import OUTPUTS_PER_SLOT

log = logging.getLogger(__name__)

OnLoad = Callable[[Path, int, int], object]

# In a model this small an operation takes microseconds, and threads meet at a barrier after each.
# If another program holds a core, the second thread costs 15 times what it saves.
SMALL = 32 << 20


class ModelPool:
    """The models that are loaded in a process, so that several emulators share their weights."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, int | None], tuple[Model, int]] = {}

    def open(
        self,
        path: os.PathLike[str],
        n_gpu_layers: int | None,
        header: GGUFHeader,
        stack: contextlib.ExitStack,
        on_progress: Callable[[float], object] | None = None,
    ) -> Model:
        """Return the model of a file, loaded if it is not; it is free once all `stack`s closed."""
        key = (os.path.realpath(path), n_gpu_layers)
        model, users = self._models.get(key) or (
            Model(path, n_gpu_layers=n_gpu_layers, header=header, on_progress=on_progress),
            0,
        )
        self._models[key] = model, users + 1
        stack.callback(self._release, key)
        return model

    def _release(self, key: tuple[str, int | None]) -> None:
        model, users = self._models.pop(key)
        if users > 1:
            self._models[key] = model, users - 1
        else:
            model.close()


class LoadOptions(TypedDict, total=False):
    """How models are loaded.

    Attributes:
        n_ctx: tokens per slot; None: the recipe's, else 4,096, never more than the smallest
            training context of the models.
        n_threads: of every decode; None: the physical cores.
        n_gpu_layers: of every model; None: all that the backend offers.
        n_slots: requests that are decoded together; more wait in a queue.
        pool: shares the weights of files that other emulators of this process have loaded.
        on_load: told how far it is, before each file and as llama.cpp reports it: the file that is
            being read, and the bytes of all files that are there and that there are. What it raises
            ends the loading.
    """

    n_ctx: int | None
    n_threads: int | None
    n_gpu_layers: int | None
    n_slots: int
    pool: ModelPool | None
    on_load: OnLoad | None


@checked_call()
def load(
    recipe: Recipe,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    n_gpu_layers: int | None = None,
    n_slots: int = 1,
    pool: ModelPool | None = None,
    on_load: OnLoad | None = None,
) -> tuple[Contexts, LoadRecord]:
    """Load what a recipe names; arguments as in `LoadOptions`.

    Raises:
        ModelFileError, RecipeError, VocabularyError, NotEnoughMemoryError, EngineError,
        RequestError: it cannot be loaded, and nothing stays loaded.
    """
    whole("n_slots", n_slots, 1, 64)
    for name, value, low, high in (
        ("n_ctx", n_ctx, 1, MAX_N_CTX),
        ("n_threads", n_threads, 1, 512),
        ("n_gpu_layers", n_gpu_layers, 0, 10_000),
    ):
        if value is not None:
            whole(name, value, low, high)

    # 1. What the files say of themselves, before native code sees them.
    check_here(recipe)
    roles = recipe.roles()
    shared = shared_contexts(roles)
    with told_to_pull(recipe):
        verify(recipe)
        headers = memory.headers(roles)
    pairs.check(recipe, headers)
    warnings = [
        *pairs.doubts(recipe, headers),
        *_unlike_asked(recipe, headers, n_ctx, n_threads, n_gpu_layers),
    ]
    n_ctx = n_ctx or default_n_ctx(recipe.n_ctx, headers)
    threads, threads_reason = n_threads or 0, "as given"
    if n_threads is None:
        threads, threads_reason = default_threads()
        threads_reason += f"; one for models below {SMALL >> 20} MiB"

    # 2. Memory, weights, vocabularies.
    with contextlib.ExitStack() as stack:
        adapts = n_threads is None
        plan = _Plan(roles, headers, n_ctx, n_slots, threads, n_gpu_layers, adapts=adapts)
        plan.weigh(CACHE_LADDER[0])
        models = _load_models(roles, headers, n_gpu_layers, stack, pool or ModelPool(), on_load)
        common = reconcile_recipe(recipe, roles, models)

        # 3. Contexts, with the first kind of cache that all of them take.
        served = [(names, models[names[0]], spec) for names, spec in shared]
        opened, cache, cache_reason = plan.open(served, stack)
        pieces = {i: models[role].piece(i) for i, role in common.adopters.items()}
        printed = {i: piece for i, piece in pieces.items() if piece}
        runners = [
            ContextRunner(names, model, context, _prompt_format(spec, model, printed))
            for (names, model, spec), context in zip(served, opened, strict=True)
        ]
        contexts = Contexts(runners, n_ctx, stack.pop_all())
    prompts = {role: runner.prompt for runner in runners for role in runner.roles}
    warnings += _unread_variables(roles, prompts)
    ends = {
        role: {i: model.token_texts()[i].decode("utf-8", "replace") for i in common.ends_of(role)}
        for role, model in models.items()
    }
    for warning in (*warnings, *common.warnings):
        log.warning("%s", warning)
    return contexts, LoadRecord(
        n_ctx=n_ctx,
        n_slots=n_slots,
        n_threads=threads,
        threads_reason=threads_reason,
        cache=cache,
        cache_reason=cache_reason,
        vocabulary=common,
        memory=plan.memory,
        contexts=tuple(runner.roles for runner in runners),
        files=MappingProxyType(
            {
                role: _loaded_file(spec, headers[role], prompts[role], ends[role])
                for role, spec in roles.items()
            }
        ),
        warnings=tuple(warnings),
    )


def _unlike_asked(
    recipe: Recipe,
    headers: Mapping[str, GGUFHeader],
    n_ctx: int | None,
    n_threads: int | None,
    n_gpu_layers: int | None,
) -> Iterator[str]:
    """Yield a line for what was asked for and is not to be had here, or not wise."""
    trained = min(header.n_ctx_train for header in headers.values())
    if n_ctx is not None and n_ctx > trained:
        yield f"n_ctx is {n_ctx}; the models were trained on {trained}"
    elif n_ctx is None and (recipe.n_ctx or 0) > trained:
        yield (
            f"n_ctx is {trained} and not the recipe's {recipe.n_ctx}: the models were trained on "
            f"{trained}; the option n_ctx (--n-ctx) goes beyond"
        )
    n_cpus = os.cpu_count() or 1
    if n_threads is not None and n_threads > n_cpus:
        yield (
            f"n_threads is {n_threads} and this machine runs {n_cpus} at once: the others make "
            "every decode wait"
        )
    deepest = max(header.n_layer for header in headers.values()) + 1
    if n_gpu_layers and not gpu_available():
        yield (
            f"n_gpu_layers is {n_gpu_layers}, and this build of llama.cpp knows no GPU: all layers "
            "run on the CPU"
        )
    elif n_gpu_layers is not None and n_gpu_layers > deepest:
        yield (
            f"n_gpu_layers is {n_gpu_layers}, and the deepest model has {deepest}, its output "
            "included: all of them go to the GPU"
        )


class _Plan:
    """Opens contexts of one size, whichever kind of cache they get."""

    def __init__(
        self,
        roles: Mapping[str, ModelSpec],
        headers: Mapping[str, GGUFHeader],
        n_ctx: int,
        n_slots: int,
        n_threads: int,
        n_gpu_layers: int | None,
        *,
        adapts: bool,
    ) -> None:
        self._roles, self._headers = roles, headers
        self._n_ctx, self._n_slots = n_ctx, n_slots
        self._n_threads, self._adapts = n_threads, adapts
        self._n_gpu_layers = n_gpu_layers
        self._n_outputs = OUTPUTS_PER_SLOT * n_slots

    def weigh(self, kind: CacheKind) -> None:
        """Refuse what does not fit into the machine's memory or its GPUs'."""
        self.memory = memory.estimate(
            self._roles,
            self._headers,
            n_ctx=self._n_ctx,
            n_slots=self._n_slots,
            n_outputs=self._n_outputs,
            kv_bytes=memory.Q8_0_BYTES if kind.kv_type == "q8_0" else memory.F16_BYTES,
            flash_attn=kind.flash_attn,
            n_gpu_layers=self._n_gpu_layers if gpu_available() else 0,
        )
        memory.check(self.memory, devices=devices() if self.memory.on_device else ())

    def open(
        self,
        served: Sequence[tuple[tuple[str, ...], Model, ModelSpec]],
        stack: contextlib.ExitStack,
    ) -> tuple[list[Context], CacheKind, str]:
        """Return contexts with the first kind of cache that every model takes, and why that one."""
        adapters = [spec.lora and model.load_adapter(spec.lora) for _, model, spec in served]
        reason = "the smallest, and every model takes it"
        for kind in CACHE_LADDER:
            if kind != CACHE_LADDER[0]:
                self.weigh(kind)
            opened = contextlib.ExitStack()
            try:
                contexts = [
                    self._context(model, adapter, kind, opened)
                    for (_, model, _), adapter in zip(served, adapters, strict=True)
                ]
            except EngineError as error:
                opened.close()
                if kind == CACHE_LADDER[-1]:
                    raise
                reason = str(error)
                log.info("%s; trying the next kind of cache", reason)
                continue
            stack.push(opened)
            return contexts, kind, reason
        raise AssertionError("the last kind of cache returns or raises")

    def _context(
        self, model: Model, adapter: Any, kind: CacheKind, stack: contextlib.ExitStack
    ) -> Context:
        context = Context(
            model,
            n_ctx=self._n_ctx,
            n_slots=self._n_slots,
            n_threads=1 if self._adapts and model.header.n_bytes < SMALL else self._n_threads,
            n_outputs=self._n_outputs,
            cache=kind,
            lora=adapter,
            n_rs_seq=buffers.n_rs_seq(model.header),
        )
        stack.callback(context.close)
        return context


def _load_models(
    roles: Mapping[str, ModelSpec],
    headers: Mapping[str, GGUFHeader],
    n_gpu_layers: int | None,
    stack: contextlib.ExitStack,
    pool: ModelPool,
    on_load: OnLoad | None,
) -> dict[str, Model]:
    sizes = {os.path.realpath(spec.file): headers[role].file_size for role, spec in roles.items()}
    total, done, models = sum(sizes.values()), 0, {}
    for role, spec in roles.items():
        size = sizes.pop(os.path.realpath(spec.file), 0)  # 0: another role has it, too
        told = None if on_load is None else partial(_tell, on_load, spec.file, done, size, total)
        if told is not None:
            told(0.0)  # llama.cpp says nothing while it maps a file, which is read then
        models[role] = pool.open(spec.file, n_gpu_layers, headers[role], stack, told)
        done += size
    return models


def _tell(on_load: OnLoad, file: Path, before: int, size: int, total: int, share: float) -> None:
    on_load(file, before + int(share * size), total)


def _unread_variables(
    roles: Mapping[str, ModelSpec], prompts: Mapping[str, PromptFormat]
) -> Iterator[str]:
    for role, spec in roles.items():
        for name in spec.template_kwargs:
            if not prompts[role].reads(name):
                yield f"template_kwargs of {role}: nothing reads {name!r} in its prompt format"


def _prompt_format(spec: ModelSpec, model: Model, printed: Mapping[int, bytes]) -> PromptFormat:
    return PromptFormat(
        spec.prompt or "plain", model, template_kwargs=spec.template_kwargs, printed=printed
    )


def _loaded_file(
    spec: ModelSpec, header: GGUFHeader, prompt: PromptFormat, ends: Mapping[int, str]
) -> LoadedFile:
    adapter = read_header(spec.lora) if spec.lora else None
    described = adapter or header
    return LoadedFile(
        path=spec.lora or spec.file,
        on=spec.file if spec.lora else None,
        n_bytes=described.file_size,
        n_parameters=described.n_parameters,
        quantisation=described.quantisation,
        architecture=described.architecture,
        n_ctx_train=described.n_ctx_train,
        sha256=spec.sha256,
        source=spec.source,
        prompt=prompt.spec,
        template_sha256=prompt.template_hash,
        end_tokens=MappingProxyType(ends),
    )
