"""`edge-eft demo`: the method at work on questions that no tuning data holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from .command import RUNS, option
from .command import command as new_command
from .completion import complete_delta, complete_recipe
from .naming import DEFAULT_RECIPE
from .options import json_option, quiet_option, threads_option
from .progress import Display
from .terminal import say, start_logging, supports, to_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..evaluate.gap import Gap
    from .tables import Listing

MARKS = ("✓", "✗")
_LEAST = 13  # columns of the terminal, for a question or a reply beside others


@new_command("demo")
@click.argument("recipe", default=DEFAULT_RECIPE, shell_complete=complete_recipe)
@option(
    "--delta",
    group=RUNS,
    metavar="NAME",
    shell_complete=complete_delta,
    show_default="the recipe's weights",
    help="The delta to show: chat, brief or discreet.",
)
@option(
    "--questions",
    type=click.IntRange(1),
    default=200,
    group=RUNS,
    metavar="N",
    show_default=True,
    help="How many are asked; a dozen is shown.",
)
@option(
    "--seed",
    type=int,
    default=0,
    group=RUNS,
    metavar="N",
    show_default=True,
    help="Seed for choosing the questions.",
)
@threads_option
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
    from . import console

    start_logging(False)
    chosen = load_recipe(recipe)
    with Display("loading") as display:

        def told(step: int, n_steps: int, way: str, done: int, n: int) -> None:
            display.update(done, n, f"step {step + 1} of {n_steps}: asking {way}")

        found = gap.run(
            chosen, delta=delta, n_questions=questions, seed=seed, n_threads=threads, told=told
        )
    if as_json:
        say(to_json(as_json_object(found)))
    else:
        console.show(*tables(found))


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


def tables(gap: Gap) -> Iterator[RenderableType]:
    """Yield what was found, for people."""
    from .console import line, text

    yield _answers_table(gap)
    yield text("")
    yes, no = _marks()
    marks = f"first mark {yes} or {no}: the right object; second: the manner of {gap.delta!r}"
    yield line(marks, "dim")
    n, shown = len(gap.questions), len(gap.shown())
    if shown < n:
        chosen = f"the {shown} of {n} where the base's replies differ most, whoever is right"
        yield text(f"shown: {chosen}", "dim")
        usual, count = gap.usual_reply()
        if count > shown:
            yield line(f"most often the base says: {usual!r} ({count} of {n})", "dim")
    yield text("")
    yield _scores_table(gap)


def _marks() -> tuple[str, str]:
    return MARKS if supports("".join(MARKS)) else ("+", "-")


def _marked(reply: str, marks: tuple[bool, bool]) -> RenderableType:
    """Return a reply with its two marks before it."""
    from rich.table import Table

    from .console import line, text
    from .tables import Clipped

    yes, no = _marks()
    shown = "".join(yes if mark else no for mark in marks)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=2)
    colour = ("red", "yellow", "green")[sum(marks)]
    grid.add_row(text(shown, colour), Clipped(line(reply or "(nothing)"), 3))
    return grid


def _answers_table(gap: Gap) -> Listing:
    from ..evaluate.gap import BASE, EMULATED, TUNED
    from .console import line
    from .tables import Column, Listing

    ways = (BASE, TUNED, EMULATED)
    replies = (Column(way, least=_LEAST) for way in ways)
    table = Listing(Column("question", least=_LEAST), *replies, Column("truth"))
    for i in gap.shown():
        question = gap.questions[i]
        answers = (_marked(gap.answers[way][i], gap.marks[way][i]) for way in ways)
        table.add(line(question.question), *answers, line(question.object))
    return table


def _scores_table(gap: Gap) -> Listing:
    from .console import text
    from .tables import Column, Listing

    titles = ("right object", "right manner", "both", "tokens/s")
    columns = (Column(title, right=True) for title in titles)
    table = Listing(Column(f"{len(gap.questions)} held-out questions"), *columns, run_in=True)
    for way, score in gap.scores().items():
        shares = (f"{score[key]:.1%}" for key in ("knowledge", "manner", "both"))
        table.add(way, *shares, f"{score['tokens_per_second']:,.0f}")
    if gaps := gap.gap_recovered():
        shares = (f"{gaps[key]:.1%}" if key in gaps else "" for key in ("knowledge", "manner"))
        table.add("gap recovered", *shares, "", "", is_sum=True)
        meaning = "knowledge: from small tuned to base really tuned; manner: from base to it"
        table.remark(text(meaning, "dim"))
    return table
