"""The inputs of one conversion, compared with each other, and their masters.

Headers are compared first, then vocabularies; weights come last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..convert import ConversionError
from ..errors import ModelFileError
from ..files import adapter_check
from ..files.gguf_check import read_header
from ..files.hf_directory import chat_template, end_tokens
from .masters import Master, MasterMaker, hf_bytes, hyperparameters
from .options import Options
from .peft_adapter import check_keepable
from .sources import Source, check_adapter_fits, check_same_family, check_same_shapes, inspect
from .talk import Talk
from .workspace import Workspace


@dataclass(frozen=True)
class Inputs:
    """The inspected inputs of one conversion."""

    reference: Source
    tuned: Mapping[str, Source]
    base: Source | None

    @property
    def all(self) -> list[Source]:
        """The base, if there is one, the reference, and the tuned inputs."""
        return [*([self.base] if self.base else []), self.reference, *self.tuned.values()]

    @property
    def models(self) -> list[Source]:
        """The inputs that are models, not adapters; the base first, as `reconcile` wants them."""
        return [source for source in self.all if not source.is_adapter]


def stays_adapter(tuned: Source, options: Options) -> bool:
    """Return whether this input is an adapter that is kept as one; a LoRA GGUF always is."""
    return tuned.kind == "lora" or (tuned.kind == "peft" and options.keep_lora)


def converts_base(base: Source, options: Options) -> bool:
    """Return whether the base becomes a file of ours; a GGUF file only with --base-type."""
    return base.kind == "hf" or options.base_type is not None


def gather(options: Options) -> Inputs:
    """Inspect all inputs and compare what their headers say.

    Raises:
        ConversionError, ModelFileError: an input is neither a model nor an adapter, or they do not
            belong together.
    """
    trust = options.trust_remote_code
    reference = inspect(options.reference, "reference", trust_remote_code=trust)
    if reference.is_adapter:
        raise ConversionError(f"{reference} is an adapter; only tuned may be one")
    tuned = {}
    for name, path in options.tuned.items():
        role = "tuned" if len(options.tuned) == 1 else f"tuned:{name}"
        source = inspect(path, role, trust_remote_code=trust)
        if source.is_adapter:
            _check_adapter(source, reference, options)
        elif source.kind == reference.kind:
            check_same_family(reference, source)
        if os.path.samefile(source.path, reference.path):
            raise ConversionError(
                f"{role} and reference are both {source.path}: their difference is nothing; the "
                "reference is the model before tuning"
            )
        if "tuned" not in options.prompts:
            template_of(source, reference)  # says now what is wrong with it
        tuned[name] = source
    base = None
    if options.base is not None:
        base = inspect(options.base, "base", trust_remote_code=trust)
        if base.is_adapter:
            raise ConversionError(f"{base} is an adapter; only tuned may be one")
    return Inputs(reference, tuned, base)


def _check_adapter(source: Source, reference: Source, options: Options) -> None:
    check_adapter_fits(source, reference)
    if source.kind != "peft":
        return
    if reference.kind != "hf":
        raise ConversionError(
            f"{source} is a PEFT adapter: the reference must be the Hugging Face "
            f"directory that it was trained on, not {reference.path.name}"
        )
    if options.keep_lora:
        check_keepable(source, reference)


def directories_of(source: Source, reference: Source) -> list[Path]:
    """Return where a source's configuration lies: its directory; an adapter's, then its model's."""
    sources = [source, reference] if source.is_adapter else [source]
    return [each.path for each in sources if each.path.is_dir()]


def template_of(source: Source, reference: Source) -> str | None:
    """Return the chat template of a directory, for an adapter its own before its model's.

    Raises:
        ConversionError: there is one that cannot be used, or no default among many.
    """
    found = (chat_template(directory) for directory in directories_of(source, reference))
    return next((template for template in found if template), None)


def check_vocabularies(inputs: Inputs, maker: MasterMaker, talk: Talk) -> int:
    """Compare vocabularies by vocabulary.py, and architectures across kinds of input.

    For this, directories are converted without their weights, which takes seconds.

    Returns:
        The width that all roles share.
    """
    files: dict[str, Path] = {}
    with talk.step("comparing vocabularies") as progress:
        for i, source in enumerate(inputs.models):
            files[source.role] = maker.vocabulary_file(source)
            progress(i + 1, len(inputs.models))
    reference = read_header(files["reference"])
    for role, path in files.items():
        header = read_header(path)
        if role in ("base", "reference"):
            continue
        if header.architecture != reference.architecture:
            raise ConversionError(
                f"{role} is of architecture {header.architecture} and reference of "
                f"{reference.architecture}: tuned must be a fine-tune of the reference"
            )
        ours, theirs = hyperparameters(header), hyperparameters(reference)
        for key in sorted(ours.keys() & theirs.keys()):
            if key.endswith(("block_count", "length", "count")) and ours[key] != theirs[key]:
                raise ConversionError(
                    f"{role} and reference differ in shape: {key} is {ours[key]} and {theirs[key]}"
                )
    found = maker.worker.work(
        "vocabulary", models={role: str(path) for role, path in files.items()}
    )
    for warning in found["warnings"]:
        talk.warn(warning)
    return int(found["n_vocab"])


def check_merged_vocabularies(
    masters: Masters, n_vocab: int, maker: MasterMaker, talk: Talk
) -> int:
    """Do for adapters that were merged what `check_vocabularies` does: they may bring tokens.

    Returns:
        The width that all roles share.
    """
    merged = [m for m in masters.tuned.values() if m.source.is_adapter and m.lora is None]
    if not merged:
        return n_vocab
    found = maker.worker.work("vocabulary", models={m.role: str(m.gguf) for m in masters.all})
    for warning in found["warnings"]:
        talk.warn(warning)
    for master in merged:
        width = read_header(master.gguf).n_vocab
        if width > read_header(masters.reference.gguf).n_vocab:
            talk.warn(
                f"{master.source} has tokens from {found['n_vocab']} to {width - 1} that not all "
                "roles have: they may stand in its prompt, and are never generated"
            )
    return int(found["n_vocab"])


def missing_ends(
    inputs: Inputs, masters: Masters, maker: MasterMaker, talk: Talk
) -> dict[str, tuple[str | int, ...]]:
    """Return role → the end tokens that its directory names and its GGUF does not end at."""
    ends: dict[str, tuple[str | int, ...]] = {}
    for master in masters.all:
        wanted = end_tokens(*directories_of(master.source, inputs.reference))
        if not wanted:
            continue
        found = maker.worker.work("ends", model=master.gguf, wanted=wanted)
        ends[master.role] = tuple(found["missing"])
        if found["unknown"]:
            talk.warn(
                f"{master.source} names end tokens that its vocabulary lacks: "
                f"{', '.join(map(str, found['unknown']))}"
            )
    return ends


@dataclass(frozen=True)
class Masters:
    """The masters of one conversion; `tuned` by name of the delta."""

    reference: Master
    tuned: Mapping[str, Master]
    base: Master | None

    @property
    def all(self) -> list[Master]:
        """The base's, if there is one, the reference's, and the tuned ones."""
        return [*([self.base] if self.base else []), self.reference, *self.tuned.values()]


def make_masters(
    inputs: Inputs, options: Options, maker: MasterMaker, workspace: Workspace
) -> Masters:
    """Turn every input into its unquantised GGUF, and compare their tensors one by one."""
    needed = hf_bytes(inputs.reference) + sum(
        hf_bytes(s) or 2 * hf_bytes(inputs.reference) for s in inputs.tuned.values()
    )
    workspace.check_space(needed, "converting the pair to F32 files")
    reference = maker.make(inputs.reference)
    tuned = {}
    for name, source in inputs.tuned.items():
        if not source.is_adapter:
            tuned[name] = maker.make(source)
        elif stays_adapter(source, options):
            tuned[name] = maker.make_kept_adapter(source, reference)
        else:
            tuned[name] = maker.make_merged(source, inputs.reference)
    reference_shapes = _shapes(reference.gguf)
    for master in tuned.values():
        if master.lora is None:
            check_same_shapes(
                reference_shapes, _shapes(master.gguf), str(inputs.reference), str(master.source)
            )
        else:
            _check_kept(master, reference)
    base = None
    if inputs.base is not None:
        base = maker.make(inputs.base)
    return Masters(reference, tuned, base)


def _check_kept(adapter: Master, reference: Master) -> None:
    """Refuse an adapter that llama.cpp would not apply wholly: what it skips, it skips silently."""
    assert adapter.lora is not None
    try:
        adapter_check.check_adapter_fits(read_header(adapter.lora), read_header(reference.gguf))
    except ModelFileError as error:
        raise ConversionError(
            f"{adapter.source} cannot stay an adapter: {error}; convert without --keep-lora"
        ) from None


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.shape) for tensor in read_header(path).tensors}
