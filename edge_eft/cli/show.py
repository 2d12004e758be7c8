"""`edge-eft show`: what there is to tell of a recipe, as data. `show_tables` shows it to people."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from .command import OUTPUT, option
from .command import command as new_command
from .models import Models
from .options import json_option, model_options, recipe_argument
from .progress import sha256
from .terminal import say, talk, to_json

if TYPE_CHECKING:
    from ..engine.load_record import LoadedFile, LoadRecord
    from ..files.recipe import Recipe


@new_command("show")
@recipe_argument
@model_options
@option(
    "--full", is_flag=True, group=OUTPUT, help="With paths, hashes, sources, reasons, and memory."
)
@json_option
def show(models: Models, words: tuple[str, ...], full: bool, as_json: bool) -> None:
    """Show a recipe, its files, and what running it means here.

    Compares every file with the sha256 that the recipe states, loads the models, and says whether
    their vocabularies fit and what memory they take; with --full also what each role takes, and
    what was chosen for this machine and why. Of a recipe that is not pulled yet: where its models
    come from, and what they will take.

    \b
    Examples:
      edge-eft show atlas
      edge-eft show atlas --full
      edge-eft show --base B.gguf --tuned T.gguf --reference R.gguf --json
    """
    from ..files.hashes import verify
    from ..files.pulled import check_here, told_to_pull
    from . import show_source, show_tables

    recipe, _ = models.recipe(words, at_most=0)
    recipe.roles()  # none without a base
    if recipe.needs_pull:
        about = show_source.description(recipe)
        _print(about, show_tables.show_to_pull, full=full, as_json=as_json)
        return
    check_here(recipe)  # a file of the hub's that is gone is known by what gets it again
    with told_to_pull(recipe):
        verify(recipe, all_sizes=True, sha256=sha256)
    with models.load(recipe) as emulator:
        record = emulator.record
    about = description(recipe, record)
    _print(about, show_tables.show_loaded, full=full, as_json=as_json)


def _print(
    about: dict[str, Any], tables: Callable[..., None], *, full: bool, as_json: bool
) -> None:
    if as_json:
        say(to_json(about))
        return
    tables(about, full=full)
    if not full and sys.stdout.isatty():
        talk("--full adds paths, hashes, sources and reasons")


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
        "sha256": file.sha256 or model_sha256(file.path, sha256=sha256),
        "stated": file.sha256 is not None,
        "source": asdict(file.source) if is_dataclass(file.source) else file.source,
        "prompt": file.prompt,
        "template_sha256": file.template_sha256,
        "end_tokens": [[token, text] for token, text in file.end_tokens.items()],
    }
