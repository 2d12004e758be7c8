"""`edge-eft match`: the models that other programs have downloaded, matched into trios.

What is found goes to stdout, for people or as JSON; what was passed over and what to do next to
stderr. Other programs' files are read and never written: a recipe names them where they lie.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import system
from .command import RECIPE, option
from .command import command as new_command
from .options import json_option
from .terminal import dim, one_line, say, talk, to_json

if TYPE_CHECKING:
    from ..match.candidates import Candidate
    from ..match.families import Family
    from ..match.missing import Missing
    from ..match.stores import Findings
    from ..match.trios import Trio

LINES = 10  # of notes, and of what is missing, that people are shown


@dataclass(frozen=True)
class Report:
    """What was found: where, the trios, what is missing, notes, and the memory that is free."""

    findings: Findings
    n_models: int
    trios: Sequence[Trio]
    families: Sequence[Family]
    lacking: Sequence[Missing]
    notes: Sequence[str]
    available: int


@new_command("match")
@click.argument("directories", nargs=-1, metavar="[DIR]...")
@option("--write", "name", group=RECIPE, metavar="NAME", help="Make a recipe of the first trio.")
@option("--trio", type=int, group=RECIPE, metavar="N", help="With --write: of the N-th trio.")
@json_option
def command(
    directories: tuple[str, ...], name: str | None, trio: int | None, as_json: bool
) -> None:
    """Find models on this machine that make an emulation.

    Looks into the Hugging Face cache, into the folders of LM Studio, Ollama, llama.cpp, Jan and
    GPT4All, and into each DIR, and proposes trios of base, tuned and reference; without one it
    lists the models with what they lack. Nothing there is changed, and no model is loaded.

    \b
    Examples:
      edge-eft match
      edge-eft match ~/models --write mine
    """
    from ..files.recipe_names import check_new_name

    if trio is not None and name is None:
        raise click.UsageError("--trio goes with --write NAME.")
    if name is not None:
        check_new_name(name)
    report = look(directories)
    written = None
    if name is not None:
        written = write(report, 1 if trio is None else trio, name)
    if as_json:
        say(to_json(as_data(report) | {"written": str(written) if written else None}))
        return
    _say_notes(report)
    if written:
        say(one_line(str(written)))
        talk(f"edge-eft show {name} says what running it means here; edge-eft chat {name}")
        return
    from .match_tables import show_tables

    show_tables(report)
    _say_next(report, directories)


def look(directories: Sequence[str]) -> Report:
    """Search, read headers, and match.

    Raises RecipeError if one of `directories` is none.
    """
    from ..files.recipe_names import catalogue, load_recipe
    from ..match.candidates import read_candidates
    from ..match.families import families
    from ..match.missing import missing
    from ..match.stores import search
    from ..match.trios import propose

    findings = search(directories)
    candidates, left_out = read_candidates(findings.files)
    available = system.memory().available
    trios, doubtful = propose(candidates, memory_of, available)
    recipes = [load_recipe(path) for path in catalogue().values()]
    lacking = missing(candidates, trios, recipes)
    related = families(candidates, recipes, memory_of, available)
    notes = [*findings.notes, *left_out, *doubtful]
    return Report(findings, len(candidates), trios, related, lacking, notes, available)


def memory_of(trio: Trio) -> int:
    """Return the bytes that running a trio takes."""
    from ..engine.defaults import default_memory

    recipe = trio.recipe("trio")
    return default_memory(recipe.n_ctx, recipe.roles(), trio.headers()).total


def write(report: Report, number: int, name: str) -> Path:
    """Save trio `number`, from 1, as recipe `name`, once its files have been checked again.

    Raises RequestError if there is no such trio, and RecipeError, ModelFileError or
    VocabularyError if it makes no recipe.
    """
    from ..engine import pairs
    from ..errors import RequestError
    from ..files import memory
    from ..files.gguf_vocabulary import read_vocabulary
    from ..files.recipe_names import save_recipe
    from ..text.vocabulary import reconcile

    count = len(report.trios)
    if not count:
        raise RequestError(
            "there is no trio to write; edge-eft match without --write says where it looked and "
            "what is missing"
        )
    if not 1 <= number <= count:
        raise RequestError(f"--trio is {number}, and the trios here are 1 to {count}")
    recipe = report.trios[number - 1].recipe(name)
    roles = recipe.roles()
    headers = memory.headers(roles)
    pairs.check(recipe, headers)
    reconcile({role: read_vocabulary(spec.file) for role, spec in roles.items()})
    for doubt in pairs.doubts(recipe, headers):
        say(one_line(f"edge-eft: {doubt}"), err=True)
    return save_recipe(recipe)


def as_data(report: Report) -> dict[str, Any]:
    """Return what `match --json` prints, but for what was written."""
    return {
        "places": [
            {"owner": place.owner, "path": str(place.path), "there": place.there}
            for place in report.findings.places
        ],
        "models": report.n_models,
        "trios": [_trio_data(trio) for trio in report.trios],
        "families": [_family_data(family) for family in report.families],
        "missing": [asdict(lack) | {"here": dict(lack.here)} for lack in report.lacking],
        "notes": list(report.notes),
        "available": report.available,
    }


def _trio_data(trio: Trio) -> dict[str, Any]:
    roles = {"base": trio.base, "tuned": trio.tuned, "reference": trio.reference}
    return {
        **{role: _file_data(each) for role, each in roles.items()},
        "why": trio.why,
        "ratio": trio.ratio,
        "memory": trio.memory,
        "fits": trio.fits,
        "exact": trio.is_exact,
        "also": [str(each.path) for each in trio.also],
    }


def _family_data(family: Family) -> dict[str, Any]:
    completion = family.completion
    return {
        "models": [_file_data(each) for each in family.models],
        "lacks": family.lacks,
        "pull": completion.name if completion else None,
        "lacking": dict(completion.lacking) if completion else {},
        "bytes_to_pull": completion.size if completion else None,
        "for_lora": [
            {"base": str(large.path), "reference": str(small.path)} for large, small in family.led
        ],
    }


def _file_data(file: Candidate) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "name": file.title,
        "owner": file.found.owner,
        "in": file.found.name,
        "bytes": file.header.file_size,
        "type": file.header.quantisation,
        "parameters": file.header.n_parameters,
        "adapter": file.header.is_adapter,
        "tuned": [file.tuned, file.why],
    }


def _say_notes(report: Report) -> None:
    for note in report.notes[:LINES]:
        say(dim(one_line(note)), err=True)
    if len(report.notes) > LINES:
        talk(f"and {len(report.notes) - LINES} more such lines, which --json lists")


def _say_next(report: Report, directories: Sequence[str]) -> None:
    completed = () if report.trios else [family.completion for family in report.families]
    if any(completed) or any(lack.pull for lack in report.lacking):
        talk(
            "edge-eft pull fetches what the Hugging Face cache lacks of a trio; one file that "
            "another program has fetched is matched as well"
        )
    if report.trios:
        others = "; --trio N of another" if len(report.trios) > 1 else ""
        here = "".join(f" {shlex.quote(each)}" for each in directories)
        talk(
            "edge-eft new finds by trying how each model wants to be asked; "
            f"{one_line(f'edge-eft match{here}')} --write NAME makes a recipe of the first as it "
            f"stands{others}"
        )
        return
    if report.n_models:
        among = f"among the {report.n_models} models" if report.n_models > 1 else "of one model"
        say(f"edge-eft: no trio {among} here", err=True)
    else:
        say("edge-eft: no model was found; looked into", err=True)
        for place in report.findings.places:
            there = "" if place.there else " (is not there)"
            talk(f"  {one_line(f'{place.owner}: {place.path}')}{there}")
    talk("name other folders: edge-eft match DIR; or get a trio: edge-eft list, edge-eft pull NAME")
