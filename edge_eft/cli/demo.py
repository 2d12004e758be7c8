"""`edge-eft demo`: the method at work on questions that no tuning data holds."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .command import command as new_command
from .completion import complete_delta, complete_recipe
from .options import json_option, quiet_option
from .terminal import (
    Styled,
    compose,
    dim,
    row,
    rule,
    say,
    start_logging,
    style,
    supports,
    talk,
    terminal_width,
    tidy,
    to_json,
    wrap,
)

if TYPE_CHECKING:
    from ..evaluate.gap import Gap

MARKS = ("✓", "✗")


@new_command("demo")
@click.argument("recipe", default="atlas", shell_complete=complete_recipe)
@click.option(
    "--delta",
    metavar="NAME",
    shell_complete=complete_delta,
    help="Whose manner: chat, brief or discreet.",
)
@click.option(
    "--questions",
    type=click.IntRange(1),
    default=200,
    metavar="N",
    show_default=True,
    help="How many are asked; the first dozen is shown.",
)
@click.option("--seed", type=int, default=0, metavar="N", help="Seed for choosing the questions.")
@click.option("--threads", type=int, metavar="N", help="Default: the physical cores.")
@quiet_option
@json_option
def demo(
    recipe: str, delta: str | None, questions: int, seed: int, threads: int | None, as_json: bool
) -> None:
    """See the method work, on questions that no tuning data holds.

    Asks the base alone, the small tuned model alone and the emulation, judges every answer (first
    mark: does it name the right object; second: is it in the tuned manner), and ends with the
    scores and the share of the gap to a really tuned base that emulation recovers.

    \b
    Examples:
      edge-eft demo
      edge-eft demo --delta brief --questions 500
    """
    from ..evaluate import gap
    from ..files.recipe_names import load_recipe

    start_logging(False)
    chosen = load_recipe(recipe)
    if sys.stderr.isatty():
        talk(f"asking up to {questions} questions of every model, and of them together …")
    found = gap.run(chosen, delta=delta, n_questions=questions, seed=seed, n_threads=threads)
    say(to_json(as_json_object(found)) if as_json else as_text(found))


def as_json_object(gap: Gap) -> dict[str, Any]:
    """Return what was found as plain data."""
    ways = gap.answers
    return {
        "delta": gap.delta,
        "scores": gap.scores(),
        "gap_recovered": gap.gap_recovered(),
        "questions": [
            asdict(question)
            | {
                "answers": {
                    way: {"text": ways[way][i], "knowledge": marks[i][0], "manner": marks[i][1]}
                    for way, marks in gap.marks.items()
                }
            }
            for i, question in enumerate(gap.questions)
        ],
    }


def as_text(gap: Gap) -> Styled:
    """Return what was found as tables for people."""
    yes, no = MARKS if supports("".join(MARKS)) else ("+", "-")
    legend = dim(f"first mark {yes} or {no}: the right object; second: the manner of {gap.delta!r}")
    return compose(_answers_table(gap), legend, "", _scores_table(gap), between="\n")


def _marked(text: str, marks: tuple[bool, bool], width: int) -> list[Styled]:
    yes, no = MARKS if supports("".join(MARKS)) else ("+", "-")
    colour = ("red", "yellow", "green")[sum(marks)]
    first = style("".join(yes if mark else no for mark in marks), fg=colour)
    lines = wrap(" ".join(tidy(text).split()) or "(nothing)", width - 3, max_lines=3)
    return [compose(first if i == 0 else "  ", " ", line) for i, line in enumerate(lines)]


def _answers_table(gap: Gap) -> Styled:
    from ..evaluate.gap import BASE, EMULATED, TUNED
    from ..evaluate.questions import N_SHOWN

    shares = (0.24, 0.22, 0.21, 0.21)
    ways = (BASE, TUNED, EMULATED)
    total = terminal_width() - 2 * len(shares)
    widths = [int(share * total) for share in shares]
    widths.append(total - sum(widths))
    heading = [[style(title, bold=True)] for title in ("question", *ways, "truth")]
    rows = [row(heading, widths), rule(widths)]
    for i, q in enumerate(gap.questions[:N_SHOWN]):
        answers = (
            _marked(gap.answers[way][i], gap.marks[way][i], width)
            for way, width in zip(ways, widths[1:], strict=False)
        )
        rows.append(
            row([wrap(q.question, widths[0]), *answers, wrap(q.object, widths[-1])], widths)
        )
    return compose(*rows, between="\n")


def _scores_table(gap: Gap) -> Styled:
    n, widths = len(gap.questions), (28, 12, 12, 12, 10)
    titles = (f"{n} held-out questions", "right object", "right manner", "both", "tokens/s")
    rows = [row([[style(title, bold=True)] for title in titles], widths), rule(widths)]
    for way, score in gap.scores().items():
        shares = [[f"{score[key]:>8.1%}"] for key in ("knowledge", "manner", "both")]
        rows.append(row([[way], *shares, [f"{score['tokens_per_second']:>8,.0f}"]], widths))
    if gaps := gap.gap_recovered():
        shares = [[f"{gaps[key]:>8.1%}"] if key in gaps else [] for key in ("knowledge", "manner")]
        rows += [rule(widths), row([["gap recovered"], *shares, [], []], widths)]
        rows.append(
            dim("knowledge: from small tuned to base really tuned; manner: from base to it")
        )
    return compose(*rows, between="\n")
