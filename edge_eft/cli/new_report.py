"""What `edge-eft new` found: for people, for programs, and for whoever reads the recipe later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import supports

if TYPE_CHECKING:
    from ..evaluate.delta import Effect
    from ..evaluate.formats import Told, Trial
    from ..files.recipe import Recipe
    from .tables import Listing

_READ = "0: every token is what was expected; -2.3: one in ten; the highest emulated is taken"
_HEADINGS = ("format", "base", "reference", "emulated")


def as_data(recipe: Recipe, path: Path, trial: Trial, effect: Effect | None) -> dict[str, Any]:
    """Return what was made as plain data, for --json."""
    models = {role.partition(":")[0]: spec for role, spec in recipe.models().items()}
    return {
        "name": recipe.name,
        "path": str(path),
        "models": {role: str(spec.lora or spec.file) for role, spec in models.items()},
        "formats": {**trial.told._asdict(), "tuned": trial.tuned},
        "tried": [
            {"formats": told._asdict(), "logprobs": asdict(score)}
            for told, score in trial.scores.items()
        ],
        "tuned_logprob": trial.own,
        "replies": {"asked": trial.n_asked, "right": trial.n_right, "scored": trial.n_scored},
        "delta": None if effect is None else asdict(effect),
    }


def shown(recipe: Recipe, trial: Trial, effect: Effect | None) -> None:
    """Print what was found, for people."""
    from .console import show, text

    show(text(f"{recipe.name}: {recipe.description}", "bold"))
    show("", text(f"Prompt formats: {_measure_of(trial)}"), _table(trial), text(_READ, "dim"))
    show(text(_chosen(trial)))
    if effect is not None:
        show("", *(text(line) for line in _effect_lines(effect)))
    show("", *(text(line, "bold") for line in _verdict(trial)), "")


def comment(trial: Trial, effect: Effect | None) -> str:
    """Return the same as lines for the recipe's head: our words and figures, no stranger's text."""
    widths = (12, 9, 11, 10)
    rows = [_HEADINGS, *(cells[:4] for cells in _rows(trial))]
    lines = [
        "Written by edge-eft new.",
        "",
        f"Prompt formats: {_measure_of(trial)}",
        *(f"{row[0]:<{widths[0]}}" + "".join(map(str.rjust, row[1:], widths[1:])) for row in rows),
        _READ,
        _chosen(trial),
    ]
    if effect is not None:
        lines += ["", *_effect_lines(effect)]
    lines += ["", *_verdict(trial)]
    return "\n".join(lines)


def _measure_of(trial: Trial) -> str:
    """Return what the figures of the table are."""
    which = "right replies" if trial.n_right else "replies, none of them right"
    return (
        f"log-probability per token of {trial.n_scored} of tuned's {which} "
        f"({trial.n_asked} questions)"
    )


def _chosen(trial: Trial) -> str:
    base, reference = trial.told
    tuned = _short(trial.tuned)
    if base == reference:
        return f"base and reference get {_short(base)}; tuned gets {tuned}"
    return f"base gets {_short(base)}, reference {_short(reference)}; tuned gets {tuned}"


def _rows(trial: Trial) -> Iterator[tuple[str, str, str, str, bool]]:
    """Yield name, figures and whether it was chosen, of each format."""
    for told, score in trial.scores.items():
        figures = (f"{each:.2f}" for each in (score.base, score.reference, score.emulated))
        yield (_name(told), *figures, told == trial.told)  # type: ignore[misc]


def _table(trial: Trial) -> Listing:
    from .tables import Column, Listing

    mark = "✓" if supports("✓") else "*"
    figures = (Column(heading, right=True) for heading in _HEADINGS[1:])
    table = Listing(Column(""), Column(_HEADINGS[0]), *figures, run_in=True, lead=2)
    for *cells, is_best in _rows(trial):
        table.add(mark if is_best else "", *cells, style="green" if is_best else "")
    return table


def _name(told: Told) -> str:
    base, reference = map(_short, told)
    return base if base == reference else f"{base}, {reference}"


def _short(spec: str) -> str:
    """Return the name of a format; Jinja written out has none."""
    from ..text.formats import is_named

    return spec if is_named(spec) else "a template of its own"


def _verdict(trial: Trial) -> Iterator[str]:
    """Yield what it comes to, in plain words."""
    from ..evaluate.formats import CLOSE

    if trial.gain >= CLOSE:
        yield (
            f"The emulation follows tuned: a token of its replies is {math.exp(trial.gain):,.1f} "
            "times as likely as under the base alone."
        )
    else:
        yield (
            "The emulation is no better than the base: tuned's replies are no likelier under it, "
            "so the delta does nothing here."
        )
    if not trial.n_right:
        yield "Tuned answered nothing right; if it should, try --format tuned=chatml or another."


def _effect_lines(effect: Effect) -> Iterator[str]:
    changed, kl = f"{effect.changed:.0%}", f"{effect.kl:.2f}"
    yield f"first choices changed   {changed} of the tokens are not what the base would have said"
    yield f"KL(emulated ‖ base)     {kl} nats per token: how far it moves the base (0: not at all)"
    emulated, base = (
        f"{speed:,.1f}" if speed else "?" for speed in (effect.emulated_speed, effect.base_speed)
    )
    yield (
        f"tokens per second       {emulated} emulated, {base} the base alone; "
        "edge-eft bench measures longer"
    )
