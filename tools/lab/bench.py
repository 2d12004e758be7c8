"""`edge-eft bench` and more: an inflated base, the baseline without edge_eft, a step's overhead.

    .venv/bin/python tools/lab/bench.py atlas --inflate 300M --rounds 30
    .venv/bin/python tools/lab/bench.py atlas --peers
    .venv/bin/python tools/lab/bench.py atlas --overhead

All options of `edge-eft bench` are here as well, and so are its table and (--json) its object.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, not another one

import baseline
import overhead as overheads
from inflate import check_type, inflate, largest_difference, parse_count

from edge_eft.bench.measure import measure
from edge_eft.bench.report import as_object, machine, quartiles, rates
from edge_eft.bench.ways import Opener
from edge_eft.cli.bench import Job, bench_options, conclude, introduce, rounds_shown
from edge_eft.cli.bench_tables import as_tables
from edge_eft.cli.command import command as new_command
from edge_eft.cli.main import fail
from edge_eft.cli.terminal import talk
from edge_eft.engine.emulator import Emulator
from edge_eft.errors import EdgeEftError, EngineError, RequestError
from edge_eft.files.recipe import Recipe


@new_command("bench.py", show_default=True)
@bench_options
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
    job: Job, parameters: str | None, inflate_type: str, peers: bool, overhead: bool
) -> None:
    """Measure how fast a recipe is here, as `edge-eft bench` does, and more.

    \b
    Examples:
      tools/lab/bench.py atlas --inflate 300M --inflate-type q4_0 --rounds 30
      tools/lab/bench.py --base B.gguf --tuned T.gguf --reference R.gguf --overhead
    """
    n_parameters = parse_count(parameters) if parameters is not None else None
    check_type(inflate_type)
    about: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if n_parameters is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            recipe, about["inflated"] = inflated(job.recipe, folder, n_parameters, inflate_type)
            job = replace(job, recipe=recipe)
        emulator = stack.enter_context(job.models.load(job.recipe))
        about = introduce(emulator, job) | about
        if overhead:
            measure_overhead(emulator, job, about)
            return
        extra = {baseline.NAME: joined(emulator, job)} if peers else {}
        with rounds_shown(job.plan) as done:
            figures = measure(emulator, job.prompts, job.plan, done, extra)
    result, found = as_object(figures, job.plan, about), rates(figures)
    if peers:
        result["peers_tps"] = quartiles(found[baseline.NAME])[0]
    conclude(job, as_tables(result, found), result)


def inflated(
    recipe: Recipe, folder: Path, n_parameters: int, type_name: str
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with an inflated base, written to `folder`, and what is to be told of it.

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


def joined(emulator: Emulator, job: Job) -> Opener:
    """Return what opens the baseline.

    Raises:
        RequestError: it cannot do what the recipe and the plan ask for.
    """
    baseline.check_comparable(emulator, job.plan)
    return lambda replies: contextlib.closing(
        baseline.PeersWay(
            emulator, job.prompts, job.plan, replies, n_gpu_layers=job.models.gpu_layers
        )
    )


def measure_overhead(emulator: Emulator, job: Job, about: dict[str, Any]) -> None:
    """Measure one step against its bare decodes, and print the figures."""
    choice = overheads.measure_choice()
    steps = overheads.measure_steps(
        emulator,
        job.prompts,
        n_tokens=job.plan.tokens,
        rounds=job.plan.rounds,
        progress=lambda number: talk(f"reply {number}"),
    )
    result = overheads.overhead_object(steps, choice)
    result_of_all = {**about, "overhead": result, "machine": machine()}
    conclude(job, [overheads.overhead_table(result)], result_of_all)


if __name__ == "__main__":
    try:
        command()
    except EdgeEftError as error:
        sys.exit(fail(str(error)))
