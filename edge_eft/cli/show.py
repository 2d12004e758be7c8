"""`edge-eft show`: what there is to tell of a recipe, as data and as lines."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from ..system import byte_size, mebibytes
from . import show_source
from .command import command as new_command
from .options import Models, json_option, model_options, recipe_argument
from .show_source import instruct_lines, prompt_name, source_line
from .terminal import compose, dim, one_line, say, style, to_json

if TYPE_CHECKING:
    from ..engine.load_record import LoadedFile, LoadRecord
    from ..files.recipe import Recipe


@new_command("show")
@recipe_argument
@model_options
@json_option
def show(models: Models, words: tuple[str, ...], as_json: bool) -> None:
    """Show a recipe, its files, and what running it means here.

    Compares every file with the sha256 that the recipe states, loads the models, and says whether
    their vocabularies fit, what memory they take, and what was chosen for this machine and why. Of
    a recipe that is not pulled yet: where its models come from, and what they will take.

    \b
    Examples:
      edge-eft show atlas
      edge-eft show --base B.gguf --tuned T.gguf --reference R.gguf --json
    """
    from ..files.hashes import verify
    from ..files.pulled import check_here, told_to_pull

    recipe, _ = models.recipe(words, at_most=0)
    recipe.roles()  # none without a base
    if recipe.needs_pull:
        about = show_source.description(recipe)
        say(to_json(about) if as_json else compose(*show_source.as_lines(about), between="\n"))
        return
    check_here(recipe)  # a file of the hub's that is gone is known by what gets it again
    with told_to_pull(recipe):
        verify(recipe, all_sizes=True)
    with models.load(recipe) as emulator:
        record = emulator.record
    about, memory = description(recipe, record), record.memory.lines()
    say(to_json(about) if as_json else compose(*as_lines(about), *memory, between="\n"))


def description(recipe: Recipe, record: LoadRecord) -> dict[str, Any]:
    """Return what `show` tells, as plain data."""
    from .shelf import model_data

    return {
        "name": recipe.name,
        "description": recipe.description,
        "license": recipe.license,
        "path": str(recipe.path) if recipe.path else None,
        "deltas": {delta.name: delta.weight for delta in recipe.deltas.values()},
        "n_ctx": record.n_ctx,
        "roles": {role: file_of(file) for role, file in record.files.items()},
        "instruct": model_data(recipe.instruct) if recipe.instruct else None,
        "vocabulary": {
            "n_vocab": record.vocabulary.n_vocab,
            "end_token": record.vocabulary.end_token,
            "widths": dict(record.vocabulary.widths),
            "padding": record.vocabulary.padding or None,
            "adopted": [
                [token, text, record.vocabulary.adopters[token]]
                for token, text in record.vocabulary.adopted.items()
            ],
            "warnings": list(record.vocabulary.warnings),
        },
        "memory": [asdict(role) | {"total": role.total} for role in record.memory.roles],
        "memory_total": record.memory.total,
        "threads": [record.n_threads, record.threads_reason],
        "cache": [str(record.cache), record.cache_reason],
        "warnings": list(record.warnings),
    }


def file_of(file: LoadedFile) -> dict[str, Any]:
    """Return what a role's file is; its sha256 is computed if the recipe states none."""
    from ..files.hashes import model_sha256

    return {
        "file": str(file.path),
        "on": str(file.on) if file.on else None,
        "bytes": file.n_bytes,
        "type": file.quantisation,
        "architecture": file.architecture,
        "parameters": file.n_parameters,
        "n_ctx_train": file.n_ctx_train,
        "sha256": file.sha256 or model_sha256(file.path),
        "stated": file.sha256 is not None,
        "source": asdict(file.source) if is_dataclass(file.source) else file.source,
        "prompt": file.prompt,
        "template_sha256": file.template_sha256,
        "end_tokens": [[token, text] for token, text in file.end_tokens.items()],
    }


def as_lines(about: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of `show` for people."""
    heading = functools.partial(style, bold=True)
    description = one_line(about["description"])
    yield compose(heading(one_line(about["name"])), f"  {description}" * bool(description))
    yield from (f"{key:<12}{one_line(about[key])}" for key in ("license", "path") if about[key])
    yield f"{'deltas':<12}{', '.join(f'{name} × {w:g}' for name, w in about['deltas'].items())}"
    for role, file in about["roles"].items():
        yield ""
        yield heading(role)
        count = file["parameters"]
        parameters = f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"
        size = f"{byte_size(file['bytes'])}, {parameters} parameters"
        yield f"  file      {one_line(file['file'])}"
        yield f"  holds     {file['type']} {one_line(file['architecture'])}, {size}"
        if file["source"]:
            yield f"  source    {source_line(file['source'])}"
        hashes = file["sha256"]
        for each in [hashes] if isinstance(hashes, str) else hashes:
            yield f"  sha256    {each} {'as stated' if file['stated'] else 'not stated'}"
        template = file["template_sha256"]
        yield compose(
            f"  prompt    {prompt_name(file['prompt'])}",
            dim(f"  template {template[:16]}…") if template else "",
        )
        ends = (f"{one_line(text)} {token}" for token, text in file["end_tokens"])
        yield f"  ends by   {', '.join(ends) or 'nothing'}"
    if about["instruct"]:
        yield ""
        yield from instruct_lines(about["instruct"])
    yield ""
    yield from _vocabulary_lines(about["vocabulary"])
    yield f"{'context':<12}{about['n_ctx']:,} tokens"
    for key in ("threads", "cache"):
        yield compose(f"{key:<12}{about[key][0]}", dim(f"  {one_line(about[key][1])}"))
    yield f"{'memory':<12}{mebibytes(about['memory_total'], 1)} MiB together"
    yield from (f"{'warning':<12}{one_line(warning)}" for warning in about["warnings"])
    yield ""


def _vocabulary_lines(vocabulary: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'vocabulary':<12}{vocabulary['n_vocab']:,} tokens, one meaning in every model"
    if vocabulary["padding"]:
        yield f"{'':<12}{vocabulary['padding']}"
    adopted: dict[str, list[str]] = {}
    for token, text, role in vocabulary["adopted"]:
        adopted.setdefault(role, []).append(f"{one_line(text)} {token}")
    for role, tokens in adopted.items():
        yield f"{'':<12}adopted from {role}: {', '.join(tokens)}"
    yield from (f"{'':<12}warning: {one_line(warning)}" for warning in vocabulary["warnings"])
