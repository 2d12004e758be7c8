"""`edge-eft bench`, and `tools/bench.py`, which is the same program.

A table on stderr; the last line on stdout is one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..backend import CACHE_LADDER, Context, Model, default_threads
from ..errors import EngineError, RequestError
from ..options import Models, model_options
from ..prompts import Defaults, read_prompts
from ..recipe import Recipe
from ..request import Prompt
from .inflate import check_type, inflate, parse_count
from .measure import Plan, Session, active_contexts
from .overhead import measure_choice, measure_steps
from .peers import NAME as PEERS
from .peers import PeersWay, check_comparable
from .prompts import default_prompts
from .report import (
    as_object,
    as_table,
    machine,
    overhead_object,
    overhead_table,
    peak_bytes,
    rates,
)

# A few tokens of any vocabulary, to compare logits on.
_PROBE = (1, 5, 9, 13, 2, 21, 34, 8)


@click.command(name="bench", context_settings={"show_default": True})
@click.argument("words", nargs=-1, metavar="[RECIPE]")
@model_options
@click.option("--recipe", "named", metavar="RECIPE", help="The same as the word RECIPE.")
@click.option(
    "--prompts",
    "file",
    metavar="FILE",
    help="JSON lines, as for run --input.  [default: the family's held-out questions]",
)
@click.option("--tokens", type=click.IntRange(2), default=64, help="Longest reply.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Rounds that count.")
@click.option("--temperature", type=click.FloatRange(0), default=0.0, help="0 is greedy.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of all draws.")
@click.option("--ignore-end", is_flag=True, help="Go on to --tokens, whatever the models say.")
@click.option(
    "--inflate",
    "parameters",
    metavar="PARAMS",
    help="Give the base so many parameters (300M, 1.5B) without changing what it says.",
)
@click.option("--inflate-type", default="q8_0", metavar="TYPE", help="Of the layers added so.")
@click.option("--peers", is_flag=True, help="Also measure three joined llama_cpp.Llama objects.")
@click.option("--overhead", is_flag=True, help="Only: one step against its bare decodes.")
def command(
    models: Models,
    words: tuple[str, ...],
    named: str | None,
    file: str | None,
    tokens: int,
    rounds: int,
    temperature: float,
    seed: int,
    ignore_end: bool,
    parameters: str | None,
    inflate_type: str,
    peers: bool,
    overhead: bool,
) -> None:
    """Measure how fast a recipe is here: with drafts, without, and its models alone.

    All is measured in one process and in turns, prompt by prompt, so that whatever else the
    machine does hits all alike; close what can be closed nevertheless. A table goes to stderr, and
    the last line on stdout is one JSON object.

    \b
    Examples:
      edge-eft bench atlas
      edge-eft bench atlas --inflate 300M --inflate-type q4_0 --rounds 30
      edge-eft bench --base B.gguf --tuned T.gguf --reference R.gguf --overhead
    """
    if named is not None:
        words = (named, *words)
    if not words and models.tuned is None and models.reference is None:
        words = ("atlas",)
    plan = Plan(tokens, rounds, temperature, seed, ignore_end)
    n_parameters = parse_count(parameters) if parameters is not None else None
    check_type(inflate_type)
    recipe, _ = models.recipe(words, at_most=0)
    prompts = read_file(file) if file is not None else default_prompts(recipe)
    about: dict[str, Any] = {
        "recipe": recipe.name,
        "prompts": len(prompts),
        "tokens": tokens,
        "rounds": rounds,
        "temperature": temperature,
        "seed": seed,
        "ignore_end": ignore_end,
    }
    with contextlib.ExitStack() as stack:
        if n_parameters is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            recipe, about["inflated"] = inflated(recipe, folder, n_parameters, inflate_type)
        emulator = stack.enter_context(models.load(recipe))
        about["threads"] = emulator.record.n_threads
        about["cache"] = str(emulator.record.cache)
        about["models"] = {
            runner.name: f"{runner.model.header.quantisation}, "
            f"{runner.model.header.n_parameters / 1e6:,.1f} M parameters"
            for runner in active_contexts(emulator)
        }
        for name, text in about["models"].items():
            talk(f"{name:<16}{text}")
        talk(f"prompts: {len(prompts)}, rounds: {rounds}, threads: {about['threads']}")
        if overhead:
            choice = measure_choice()
            steps = measure_steps(
                emulator,
                prompts,
                n_tokens=tokens,
                rounds=rounds,
                progress=lambda number: talk(f"reply {number}"),
            )
            result = overhead_object(steps, choice)
            talk(f"\n{overhead_table(result)}")
            click.echo(json.dumps({**about, "overhead": result, "machine": machine()}))
            return
        if peers:
            check_comparable(emulator, plan)
        with contextlib.closing(Session(emulator, prompts, plan)) as session:
            figures = session.warm_up(peak_bytes)
            if peers:
                joined = PeersWay(
                    emulator, prompts, plan, figures.replies, n_gpu_layers=models.gpu_layers
                )
                session.ways[PEERS] = stack.enter_context(contextlib.closing(joined))
            session.run(figures, progress_to(rounds))
        result = as_object(figures, plan, about)
    talk(f"\n{as_table(result, rates(figures))}")
    click.echo(json.dumps(result))


def read_file(file: str) -> list[Prompt]:
    """The prompts of a file of JSON lines; their settings do not count here."""
    asked = read_prompts(file, Defaults({}, raw=False, system=None))
    prompts = [one.request.prompt for one in asked]
    if len(prompts) < 2:
        raise RequestError(f"{file}: holds one prompt; give two or more")
    return prompts


def inflated(
    recipe: Recipe, folder: Path, n_parameters: int, type_name: str
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with an inflated base, written to `folder`, and what is to be told of it.

    Raises:
        EngineError: the inflated base's logits differ from the base's by more than rounding.
    """
    base = recipe.roles()["base"]
    talk(f"inflating {base.file.name} …")
    try:
        made = inflate(base.file, folder / f"inflated-{base.file.name}", n_parameters, type_name)
    except OSError as error:
        raise RequestError(
            f"{folder}: cannot be written to ({error.strerror}); set TMPDIR to a folder with room"
        ) from None
    difference = largest_difference(base.file, made.path)
    if not difference <= 1e-3:
        raise EngineError(f"the inflated base says something else: logits differ by {difference}")
    same = "bitwise equal" if difference == 0 else f"equal within {difference:.1e}"
    talk(f"inflated to {made}; logits {same}")
    about = {
        "parameters": made.n_parameters,
        "layers": made.n_layers,
        "width": made.width,
        "types": made.types,
        "largest_logit_difference": difference,
    }
    return replace(recipe, base=replace(base, file=made.path, sha256=None)), about


def largest_difference(first: os.PathLike[str], second: os.PathLike[str]) -> float:
    """Between the logits of two models behind a few tokens, one after another."""
    rows = []
    for path in (first, second):
        model = Model(path)
        tokens = np.array(_PROBE, np.int32) % model.n_vocab
        context = Context(
            model, n_ctx=256, n_threads=default_threads()[0], n_outputs=1, cache=CACHE_LADDER[-1]
        )
        try:
            rows.append([context.advance({0: (tokens[:n], 1)})[0][0].copy() for n in (3, 4, 8)])
        finally:
            context.close()
            model.close()
    return float(np.max(np.abs(np.array(rows[0]) - np.array(rows[1]))))


def talk(text: str) -> None:
    """Lines on stderr."""
    click.echo(text, err=True)


def progress_to(rounds: int) -> Callable[[int], None]:
    """A callback that says which round is done."""
    return lambda number: talk(f"round {number} of {rounds}")
