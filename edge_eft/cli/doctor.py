"""`edge-eft doctor`: what works here, what does not, why it is slow, and what to do about it.

Each thing is a line with a word for its verdict, so that it reads the same without colours, and in
a bug report. What is looked at is in `build_checks` and `machine_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .command import RUNS, option
from .command import command as new_command
from .completion import complete_recipe
from .finding import NOTE, OK, WARNING, Finding
from .options import json_option
from .progress import Display
from .terminal import one_line, say, terminal_width, to_json

if TYPE_CHECKING:
    from ..files.recipe import Recipe

_COLOURS = {OK: "green", NOTE: "yellow", WARNING: "red"}
_VERDICT, _NAME, _LEAST = 9, 14, 30  # columns; the last: for what was found, beside the others


@new_command("doctor")
@click.argument("name", required=False, metavar="[RECIPE]", shell_complete=complete_recipe)
@option("--online", is_flag=True, group=RUNS, help="Also ask whether the Hugging Face hub answers.")
@json_option
def doctor(name: str | None, online: bool, as_json: bool) -> None:
    """Look at this installation and machine: what works, and why it is slow.

    llama.cpp is tried out in a process of its own: whether the build suits the processor, and what
    it would be reinstalled with. With a RECIPE, how many tokens per second the memory's bandwidth
    allows. It takes a few seconds, loads no large model and needs no network.

    Each line begins with "ok", "note" (it works, and could do better) or "warning" (something does
    not work). The exit status is 0 without a warning and 1 with one. Nothing in the text or in the
    JSON names you, your host or a directory: paste it into a bug report as it is.

    \b
    Examples:
      edge-eft doctor
      edge-eft doctor atlas --json
    """
    from ..files.recipe_names import load_recipe

    recipe = load_recipe(name) if name is not None else None
    seen = []
    for finding in findings(recipe, online=online):
        seen.append(finding)
        if not as_json:
            show(finding)
    if as_json:
        say(to_json({"findings": [asdict(finding) for finding in seen]}))
    if any(finding.verdict == WARNING for finding in seen):
        raise click.exceptions.Exit(1)


def findings(recipe: Recipe | None, *, online: bool) -> Iterator[Finding]:
    """Yield what there is to say, as it is found."""
    from . import build_checks, machine_checks

    with Display("trying llama.cpp out"):
        trial = build_checks.try_out(build_checks.embedded_model())
    yield from build_checks.examine(trial)
    yield machine_checks.threads(trial.steps)
    yield machine_checks.memory()
    with Display("measuring how fast memory is read"):
        measured = machine_checks.bandwidth(trial.steps.get("threads", [None])[0])
    yield measured
    if recipe is not None:
        rate = float(measured.data.get("bytes_per_second", 0))
        yield machine_checks.recipe_speed(recipe, rate, bool(trial.steps.get("gpu")))
    yield from machine_checks.disks()
    with Display("asking the hub", hidden=not online):
        hub = machine_checks.hub(online)
    yield hub
    yield machine_checks.environment()


def show(finding: Finding) -> None:
    """Print a finding; a command stays on one line, to be copied."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from . import console

    verdict = console.text(finding.verdict, f"bold {_COLOURS[finding.verdict]}")
    told = [console.line(finding.value)]
    if finding.advice:
        told.append(console.line(finding.advice, "dim"))
    indent = _VERDICT + _NAME
    if terminal_width() < indent + _LEAST:
        indent = 2
        title = Text.assemble(verdict, " ", console.line(finding.name))
        console.show(title, Padding(Group(*told), (0, 0, 0, indent)))
    else:
        grid = Table.grid()
        grid.add_column(width=_VERDICT)
        grid.add_column(width=_NAME)
        grid.add_row(verdict, console.line(finding.name), Group(*told))
        console.show(grid)
    if finding.command:
        say(" " * indent, one_line(finding.command))
