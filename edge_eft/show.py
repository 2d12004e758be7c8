"""What `list` and `show` tell of a recipe, as data and as lines."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .emulator import Emulator
from .gguf_check import read_header
from .options import one_line
from .recipe import ModelSpec, load_recipe
from .replies import dim
from .template import FORMATS


def summary(path: Path) -> dict[str, Any]:
    """What `list` tells of a recipe, as plain data; its files are not opened."""
    recipe = load_recipe(path)
    pairs = (spec for delta in recipe.deltas.values() for spec in (delta.tuned, delta.reference))
    specs = [*pairs, *([recipe.base] if recipe.base else [])]
    files = {file for spec in specs for file in (spec.file, spec.lora) if file}
    return {
        "name": path.stem,
        "description": recipe.description,
        "license": recipe.license,
        "bytes": sum(file.stat().st_size for file in files if file.is_file()),
        "missing": sorted(str(file) for file in files if not file.is_file()),
        "path": str(path),
    }


def description(emulator: Emulator) -> dict[str, Any]:
    """What `show` tells, as plain data."""
    recipe, seat_of = emulator.recipe, {r: seat for seat in emulator.seats for r in seat.roles}
    return {
        "name": recipe.name,
        "description": recipe.description,
        "license": recipe.license,
        "path": str(recipe.path) if recipe.path else None,
        "deltas": dict(emulator.deltas),
        "n_ctx": emulator.n_ctx,
        "roles": {
            role: file_of(spec)
            | {"prompt": spec.prompt, "template_sha256": seat_of[role].prompt.template_hash}
            for role, spec in recipe.roles().items()
        },
        "vocabulary": {
            "n_vocab": emulator.vocabulary.n_vocab,
            "end_token": emulator.vocabulary.end_token,
            "warnings": list(emulator.vocabulary.warnings),
        },
        "memory": [asdict(role) | {"total": role.total} for role in emulator.setup.memory.roles],
        "memory_total": emulator.setup.memory.total,
        "threads": [emulator.setup.n_threads, emulator.setup.threads_reason],
        "cache": [str(emulator.setup.cache), emulator.setup.cache_reason],
    }


def file_of(spec: ModelSpec) -> dict[str, Any]:
    """The file of a role: what it is, its size and its sha256."""
    path = spec.lora or spec.file
    header = read_header(path)
    with open(path, "rb") as file:
        sha256 = spec.sha256 or hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "file": str(path),
        "on": str(spec.file) if spec.lora else None,
        "bytes": header.file_size,
        "type": header.quantisation,
        "architecture": header.architecture,
        "parameters": header.n_parameters,
        "n_ctx_train": header.n_ctx_train,
        "sha256": sha256,
        "stated": spec.sha256 is not None,
        "source": spec.source,
    }


def as_lines(about: Mapping[str, Any]) -> Iterator[str]:
    """What `show` tells, for people."""
    heading = functools.partial(click.style, bold=True)
    yield heading(about["name"]) + (
        f"  {one_line(about['description'])}" * bool(about["description"])
    )
    yield from (f"{key:<12}{one_line(about[key])}" for key in ("license", "path") if about[key])
    yield f"{'deltas':<12}{', '.join(f'{name} × {w:g}' for name, w in about['deltas'].items())}"
    for role, file in about["roles"].items():
        yield ""
        yield heading(role)
        size = f"{mebibytes(file['bytes'])}, {file['parameters'] / 1e6:,.1f} M parameters"
        yield f"  file      {one_line(file['file'])}"
        yield f"  holds     {file['type']} {one_line(file['architecture'])}, {size.strip()}"
        yield f"  sha256    {file['sha256']} {'as stated' if file['stated'] else 'not stated'}"
        template = file["template_sha256"]
        yield f"  prompt    {prompt_name(file['prompt'])}" + (
            dim(f"  template {template[:16]}…") if template else ""
        )
    vocabulary = about["vocabulary"]
    yield ""
    yield f"{'vocabulary':<12}{vocabulary['n_vocab']:,} tokens, one meaning in every model"
    yield from (f"{'':<12}warning: {one_line(warning)}" for warning in vocabulary["warnings"])
    yield f"{'context':<12}{about['n_ctx']:,} tokens"
    for key in ("threads", "cache"):
        yield f"{key:<12}{about[key][0]}" + dim(f"  {one_line(about[key][1])}")
    yield f"{'memory':<12}{mebibytes(about['memory_total']).strip()} together"
    yield ""


def prompt_name(prompt: str) -> str:
    """The name of a prompt format; an inline template is long."""
    return prompt if prompt in FORMATS else "inline Jinja"


def mebibytes(n_bytes: int) -> str:
    """A size for people."""
    return f"{n_bytes / 2**20:>8,.1f} MiB"
