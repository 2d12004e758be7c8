"""`edge-eft bench`: a table, or one JSON object.

`tools/lab/bench.py` does the same and more, by the same parts: the options and what they ask for,
what is said beforehand, and what is said in the end.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..errors import RequestError
from .command import RUNS, option
from .command import command as new_command
from .models import Models
from .options import Function, json_option, model_options, recipe_argument
from .progress import Display
from .terminal import say, talk, to_json
from .values import Finite

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..bench.ways import Plan
    from ..engine.emulator import Emulator
    from ..engine.request import Prompt
    from ..files.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """What the options ask for: of which models, with which prompts, by which plan."""

    models: Models
    recipe: Recipe
    prompts: Sequence[Prompt]
    plan: Plan
    as_json: bool


# As decorators stand, the last is the first of --help.
_OPTIONS = (
    json_option,
    option(
        "--ignore-end",
        is_flag=True,
        group=RUNS,
        help="Go on to --tokens, whatever the models say.",
    ),
    option(
        "--seed",
        "-s",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        group=RUNS,
        help="Seed of all draws.",
    ),
    option(
        "--temperature",
        "-t",
        type=Finite(0, 100),
        default=0.0,
        metavar="T",
        aliases=["--temp"],
        group=RUNS,
        help="0 is greedy.",
    ),
    option(
        "--rounds",
        type=click.IntRange(1),
        default=5,
        metavar="N",
        group=RUNS,
        help="Rounds that are measured.",
    ),
    option(
        "--tokens",
        type=click.IntRange(2),
        default=64,
        metavar="N",
        group=RUNS,
        help="Longest reply, in tokens.",
    ),
    option(
        "--prompts",
        "file",
        group=RUNS,
        metavar="FILE",
        show_default="the family's held-out questions",
        help="JSON lines, as for run --input.",
    ),
)


def bench_options(command: Function) -> Function:
    """Add the options of the benchmark, given to the command as `job`."""

    @functools.wraps(command)
    def packed(
        *,
        models: Models,
        words: tuple[str, ...],
        file: str | None,
        tokens: int,
        rounds: int,
        temperature: float,
        seed: int,
        ignore_end: bool,
        as_json: bool,
        **more: Any,
    ) -> None:
        from ..bench.prompts import default_prompts
        from ..bench.ways import Plan

        recipe, _ = models.recipe(words, at_most=0)
        prompts = read_file(file) if file is not None else default_prompts(recipe)
        plan = Plan(tokens, rounds, temperature, seed, ignore_end)
        command(job=Job(models, recipe, prompts, plan, as_json), **more)

    for each in _OPTIONS:
        packed = each(packed)
    return recipe_argument(model_options(packed))


@new_command("bench", show_default=True)
@bench_options
def command(job: Job) -> None:
    """Measure how fast a recipe is here: with drafts, without, and its models alone.

    All is measured in one process and in turns, prompt by prompt, so that whatever else the
    machine does hits all alike; close what can be closed nevertheless. With --json the figures are
    one JSON object on stdout, and the table goes to stderr.

    \b
    Examples:
      edge-eft bench atlas
      edge-eft bench atlas --rounds 30 -t 0.7
      edge-eft bench atlas --json > figures.json
      edge-eft bench --base B.gguf --tuned T.gguf --reference R.gguf
    """
    from ..bench.measure import measure
    from ..bench.report import as_object, rates
    from .bench_tables import as_tables

    with job.models.load(job.recipe) as emulator:
        about = introduce(emulator, job)
        with rounds_shown(job.plan) as done:
            figures = measure(emulator, job.prompts, job.plan, done)
    result = as_object(figures, job.plan, about)
    conclude(job, as_tables(result, rates(figures)), result)


def introduce(emulator: Emulator, job: Job) -> dict[str, Any]:
    """Say what is measured, and return it as plain data."""
    from ..bench.ways import active_contexts

    about: dict[str, Any] = {
        "recipe": job.recipe.name,
        "prompts": len(job.prompts),
        "tokens": job.plan.tokens,
        "rounds": job.plan.rounds,
        "temperature": job.plan.temperature,
        "seed": job.plan.seed,
        "ignore_end": job.plan.ignore_end,
        "threads": emulator.record.n_threads,
        "cache": str(emulator.record.cache),
        "models": {
            runner.name: f"{runner.model.header.quantisation}, "
            f"{runner.model.header.n_parameters / 1e6:,.1f} M parameters"
            for runner in active_contexts(emulator)
        },
    }
    for name, text in about["models"].items():
        talk(f"{name:<16}{text}")
    talk(f"prompts: {about['prompts']}, rounds: {about['rounds']}, threads: {about['threads']}")
    return about


def conclude(job: Job, tables: Iterable[RenderableType], result: Mapping[str, Any]) -> None:
    """Print the figures: for people, or for programs, and then for people on stderr."""
    from .console import show

    show(*tables, err=job.as_json)
    if job.as_json:
        say(to_json(result))


def read_file(file: str) -> list[Prompt]:
    """Return the prompts of a file of JSON lines; their settings do not count here."""
    from ..engine.request import is_ids
    from ..engine.settings import Defaults
    from .prompts import read_prompts

    asked = read_prompts(file, Defaults({}, raw=False, system=None))
    prompts = [one.request.prompt for one in asked]
    if any(map(is_ids, prompts)):
        raise RequestError(f"{file}: has a prompt of token ids; the bench needs texts or messages")
    if len(prompts) < 2:
        raise RequestError(f"{file}: holds one prompt; give two or more")
    return prompts


@contextlib.contextmanager
def rounds_shown(plan: Plan) -> Iterator[Callable[[int], None]]:
    """Show how many rounds are done. Yields what is to be told of each."""
    display = Display("measuring: rounds", total=plan.rounds)
    display.tick = 1.0  # a picture takes a millisecond or two from what is measured
    with display:
        yield display.update
