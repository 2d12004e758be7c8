"""`edge-eft list`: the recipes that have a name, first what is here, then what can be pulled."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from ..system import byte_size
from .command import OUTPUT, option
from .command import command as new_command
from .options import json_option
from .terminal import counted, one_line, say, to_json

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from .shelf import Entry
    from .tables import Clipped, Listing

_HEADINGS = ("size", "memory", "fits", "ratio", "drafts")
_MEANINGS = (
    ("memory", "what running it takes; ~ is a guess until the files are here"),
    ("fits", "here: yes, tight (once other programs are closed) or no"),
    ("ratio", "size of the small model to the large one's; below .1 it drafts for almost nothing"),
    (
        "drafts",
        "tokens that the small model guesses ahead, for speed: they leave the text exactly as "
        "it is, or up to rounding",
    ),
)
_FIGURES = ("size", "memory", "ratio")


@new_command("list")
@click.argument("words", nargs=-1, metavar="[WORD]...")
@option("--here", is_flag=True, group=OUTPUT, help="Only what is on this machine.")
@json_option
def command(words: tuple[str, ...], here: bool, as_json: bool) -> None:
    """List the recipes: what is here, and what can be pulled. A WORD picks those that have it;
    where none has, the status is 1.

    \b
    size    of all files
    memory  that running it takes; ~ is an approximation, until the files are here
    fits    yes; tight: once other programs are closed; no: more than this machine has
    ratio   tuned / base: the price of a draft; below .1 drafts pay off most
    drafts  leave a text exactly as it is, or up to rounding

    \b
    Examples:
      edge-eft list
      edge-eft list qwen3 --json
    """
    from .shelf import Entry, shelf

    found = list(shelf())
    picked = [each for each in found if _has(each.as_data(), words)]
    entries = [each for each in picked if isinstance(each, Entry)]
    if here:
        entries = [entry for entry in entries if entry.is_here]
        picked = [each for each in picked if not isinstance(each, Entry) or each.is_here]
    for each in found:
        if each.problem:
            say(f"edge-eft: {one_line(each.problem)}", err=True)
    for line in () if as_json else _stopped():
        say(line, err=True)
    if as_json:
        say(to_json([each.as_data() for each in picked]))
    elif not entries:
        what = f"no recipe has {' '.join(words)!r}" if words else "no recipe is here"
        say(f"edge-eft: {one_line(what)}; `edge-eft list` shows all there are", err=True)
    else:
        from .console import show

        show(_table(entries))
        if sys.stdout.isatty():
            show(*_legend(entries), err=True)
    if words and not picked:
        raise click.exceptions.Exit(1)


def _stopped() -> Iterator[str]:
    """Yield what to do about pulls that have not ended."""
    from ..errors import EdgeEftError
    from ..files.pulled import is_for_lora
    from ..files.recipe_names import load_recipe, own_recipes
    from ..files.unfinished import unfinished

    own = own_recipes()
    for name, path in unfinished().items():
        again = f"edge-eft pull {name}"
        with contextlib.suppress(EdgeEftError):
            again += " --for-lora" * is_for_lora(load_recipe(path))
        what = f"{again} goes on with it, edge-eft remove {name} removes what came"
        if name in own:  # an update, or models for adapters
            what = "the same command goes on with it"
        yield f"edge-eft: the pull of {one_line(name)} has not ended; {one_line(what)}"


def _has(about: dict[str, object], words: Sequence[str]) -> bool:
    text = " ".join(str(about.get(key)) for key in ("name", "kind", "description", "license"))
    return all(word.lower() in text.lower() for word in words)


def _table(entries: Sequence[Entry]) -> Listing:
    from .tables import Column, Listing

    notes = [one_line("; ".join(_notes(entry))) for entry in entries]
    columns = [Column(heading, right=heading in _FIGURES) for heading in _HEADINGS]
    # The notes are shown whole, a licence as far as there is room.
    columns.append(Column("notes, licence", least=max(*map(len, notes), 8) + 2, named=False))
    listing = Listing(Column("recipe"), *columns, run_in=True)
    for title, is_here in (("here", True), ("to pull", False)):
        part = [pair for pair in zip(entries, notes, strict=True) if pair[0].is_here == is_here]
        if part:
            listing.section(title)
        for entry, note in part:
            listing.add(*_cells(entry, note), style="dim" if entry.fits == "no" else "")
    return listing


def _cells(entry: Entry, notes: str) -> tuple[Text | Clipped, ...]:
    from .console import line
    from .tables import Clipped

    memory = "?" if entry.memory is None else byte_size(entry.memory)
    cells = (
        entry.name,
        "?" if entry.n_bytes is None else byte_size(entry.n_bytes),
        f"~{memory}" if entry.approximate and entry.memory is not None else memory,
        entry.fits or "?",
        "?" if entry.ratio is None else f"{entry.ratio:.2f}".removeprefix("0"),
        entry.drafts or "?",
    )
    about = "; ".join(filter(None, (notes, entry.recipe.license)))
    return *map(line, cells), Clipped(line(about), 1)


def _notes(entry: Entry) -> Iterator[str]:
    if entry.problem:
        yield "damaged"
    if entry.recipe.base is None:
        yield "needs --base"
    if entry.state == "files missing":
        yield f"{counted(len(entry.missing), 'file')} missing"
    elif entry.for_lora:
        yield "here for --lora"
    elif entry.state == "partly here" and entry.to_pull is not None:
        yield f"{byte_size(entry.to_pull)} to fetch"
    if entry.gated:
        yield "gated"


def _legend(entries: Sequence[Entry]) -> Iterator[RenderableType]:
    """Yield what the columns mean, and what to type next."""
    from .console import line
    from .tables import Facts

    yield line("")
    yield Facts(((name, line(meaning, "dim")) for name, meaning in _MEANINGS), style="dim")
    yield from (line(told, "dim") for told in _next(entries))


def _next(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield what to type next."""
    for entry in entries:
        if entry.for_lora:
            yield f"edge-eft chat {entry.name} --lora ADAPTER runs; the rest is not here"
        elif entry.kind == "pulled" and entry.state == "partly here":
            yield f"edge-eft pull {entry.name} completes it"
    to_get = "" if all(entry.is_here for entry in entries) else ", edge-eft pull NAME gets it"
    yield f"edge-eft show NAME says more of one{to_get}"
