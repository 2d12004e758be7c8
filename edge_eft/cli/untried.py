"""Three bare files: nobody has said how base and reference are asked, so that it is tried, briefly.

`edge-eft new` tries more, and keeps what it found.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Unpack

from .progress import Display, loading
from .terminal import talk

if TYPE_CHECKING:
    from ..engine.emulator import Emulator
    from ..engine.loader import LoadOptions
    from ..files.recipe import Recipe

_N_QUESTIONS, _SECONDS = 3, 5.0
_AMONG = ("template", "plain")


def load(recipe: Recipe, *, untried: bool, **options: Unpack[LoadOptions]) -> Emulator:
    """Load a recipe; may take a while, and shows how far it is.

    Args:
        untried: whether it is one of three bare files, whose formats nobody has named.
        options: see `LoadOptions`.
    """
    if not untried or recipe.base is None:
        return shown_loading(recipe, **options)
    # Plain prompts, written out, are no doubt to tell of: they are what is tried first.
    recipe = recipe.with_models({"base": replace(recipe.base, prompt="plain")})
    emulator = shown_loading(recipe, **options)
    try:
        settle_formats(emulator)
    except BaseException:
        emulator.close()
        raise
    return emulator


def shown_loading(recipe: Recipe, **options: Unpack[LoadOptions]) -> Emulator:
    """Load a recipe as it is, showing how far it is."""
    from ..engine.emulator import Emulator

    with loading() as on_load:
        return Emulator(recipe, **options | {"on_load": on_load})


def settle_formats(emulator: Emulator) -> None:
    """Tell base and reference their chat templates if that suits them better than plain prompts."""
    from ..errors import PromptError
    from ..evaluate.formats import QUESTIONS, find_formats, formats_of
    from .replies import stoppable

    (delta,) = emulator.deltas
    if not all("template" in formats_of(emulator, r) for r in ("base", f"reference:{delta}")):
        return
    try:
        with stoppable(emulator), Display("trying how base and reference are asked"):
            trial = find_formats(
                emulator,
                among=_AMONG,
                questions=QUESTIONS[:_N_QUESTIONS],
                until=perf_counter() + _SECONDS,
            )
    except PromptError:  # a tiny context, a tuned model that says nothing: plain prompts, then
        return
    talk(
        f"prompt format of base and reference: {trial.told.base}, which suits them best of "
        f"{' and '.join(_AMONG)}; edge-eft new finds it once and for all"
    )
