"""One conversion from beginning to end: the order of the work, and what it leaves behind.

inspect → compare vocabularies and shapes → masters → plan and disk space → calibrate
    → quantise both sides alike → check → measure → publish
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..backend import default_threads
from ..convert import ConversionError
from ..files.hf_directory import shown_name
from ..files.plain_text import reason
from ..system import versions
from .choose import winner
from .inputs import (
    Inputs,
    Masters,
    check_merged_vocabularies,
    check_vocabularies,
    converts_base,
    gather,
    make_masters,
    missing_ends,
    stays_adapter,
)
from .masters import MasterMaker
from .options import AUTO, AUTO_TYPES, Options
from .publish import Outcome, Publisher
from .report import build_report
from .sources import Source
from .sweep import Sweep
from .talk import Talk
from .worker import Worker
from .workspace import Workspace


def convert(options: Options, talk: Talk) -> Outcome:
    """Do one conversion. Files get their final names only if all of it succeeded.

    Raises:
        EdgeEftError: with one line for the user; nothing is left behind.
    """
    try:
        inputs = gather(options)
    except OSError as error:
        raise ConversionError(f"{error.filename}: {reason(error)}") from None
    with (
        Workspace(
            options.out, options.name, force=options.force, inputs=options.inputs
        ) as workspace,
        Worker() as worker,
    ):
        workspace.check_free(_expected_targets(options, inputs))
        for type_name in AUTO_TYPES if options.type == AUTO else ():
            for target in _expected_targets(replace(options, type=type_name), inputs):
                workspace.check_no_input(target)
        maker = MasterMaker(workspace, worker, talk, options.llama_cpp)
        n_vocab = check_vocabularies(inputs, maker, talk)
        masters = make_masters(inputs, options, maker, workspace)
        n_vocab = check_merged_vocabularies(masters, n_vocab, maker, talk)
        ends = missing_ends(inputs, masters, maker, talk)
        metadata = {s.role: _file_metadata(s, options) for s in inputs.all}
        base = _final_base(masters, options, metadata, maker)
        sweep = Sweep(
            options,
            masters,
            base,
            n_vocab,
            maker=maker,
            workspace=workspace,
            talk=talk,
            metadata=metadata,
        )
        chosen = winner(sweep)
        report = build_report(options, chosen, sweep, talk.warnings)
        return Publisher(options, inputs, masters, ends, workspace).publish(base, chosen, report)


def _expected_targets(options: Options, inputs: Inputs) -> list[Path]:
    """Return the results that are known before anything is measured."""
    targets = [options.recipe_path, options.report_path]
    if options.share:
        return targets  # whether a model file is written depends on its content
    if inputs.base is not None and converts_base(inputs.base, options):
        targets.append(options.final_base_path)
    if options.type != AUTO:
        targets.append(options.model_path("reference", options.type))
    for name, source in inputs.tuned.items():
        if stays_adapter(source, options):
            targets.append(options.lora_path(name))
        elif options.type != AUTO:
            targets.append(options.model_path(name, options.type))
    return targets


def _file_metadata(source: Source, options: Options) -> dict[str, str]:
    """Return a GGUF file's provenance: only what decides its content, so equal files stay equal."""
    flags = f"--type {options.type.lower()}"
    if options.calibrate:
        flags += f" --calibrate {options.calibrate.name}"
    return {
        "edge_eft.source": shown_name(source.path),
        "edge_eft.source_sha256": source.sha256,
        "edge_eft.command": f"edge-eft convert {flags}",
        "edge_eft.versions": versions("edge-eft", "llama-cpp-python"),
    }


def _final_base(
    masters: Masters,
    options: Options,
    metadata: Mapping[str, Mapping[str, str]],
    maker: MasterMaker,
) -> Path | None:
    """Return the base that the recipe will name: a GGUF as it is, unless --base-type is given."""
    master, worker = masters.base, maker.worker
    if master is None:
        return None
    if not converts_base(master.source, options):
        worker.work("probe", model=master.gguf)
        return master.gguf
    type_name = options.final_base_type
    target = maker.workspace.path(f"base-{type_name}.gguf")
    with maker.talk.step(f"base → {type_name}") as progress:
        worker.work(
            "quantize",
            on_progress=progress,
            source=master.gguf,
            target=target,
            type_name=type_name,
            metadata=metadata["base"],
            n_threads=default_threads()[0],
            allow_requantize=options.allow_requantize,
        )
    worker.work("probe", model=target)
    return target
