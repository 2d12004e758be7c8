"""The prompt formats of an emulator that is loaded: others to try, and to use.

Models and contexts stay as they are, so that formats can be tried without loading anything again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ..errors import RequestError
from ..text.prompt_format import PromptFormat
from .contexts import ContextRunner
from .emulator import Emulator


def runner_of(emulator: Emulator, role: str) -> ContextRunner:
    """Return the context that serves a role."""
    return next(runner for runner in emulator.contexts if role in runner.roles)


def prompt_format(emulator: Emulator, role: str, spec: str) -> PromptFormat:
    """Return the prompt format `spec` for the model of a role, with the recipe's variables.

    Raises:
        PromptError: it is not a format, or the model has no such template.
    """
    adopters = emulator.vocabulary.adopters
    pieces = {i: runner_of(emulator, other).model.piece(i) for i, other in adopters.items()}
    return PromptFormat(
        spec,
        runner_of(emulator, role).model,
        template_kwargs=emulator.recipe.roles()[role].template_kwargs,
        printed={i: piece for i, piece in pieces.items() if piece},
    )


def use_formats(emulator: Emulator, formats: Mapping[str, str]) -> None:
    """Tell roles every later prompt in another format; the recipe and the record then say so.

    Args:
        formats: role → format.

    Raises:
        PromptError: as `prompt_format`.
        RequestError: a request is in work, which was told its prompt already.
    """
    if emulator.busy:
        raise RequestError("a request is in work; formats are changed between requests")
    made = {role: prompt_format(emulator, role, spec) for role, spec in formats.items()}
    files = dict(emulator.record.files)
    for role, prompt in made.items():
        runner_of(emulator, role).prompt = prompt
        template = prompt.template_hash
        files[role] = replace(files[role], prompt=prompt.spec, template_sha256=template)
    models = emulator.recipe.models()
    emulator.recipe = emulator.recipe.with_models(
        {role: replace(models[role], prompt=prompt.spec) for role, prompt in made.items()}
    )
    emulator.record = replace(emulator.record, files=MappingProxyType(files))
