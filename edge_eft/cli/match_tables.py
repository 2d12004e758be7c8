"""What `match` shows people: a table of each trio, else of each family, and of what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from ..system import byte_size, mebibytes
from .console import line, show, text
from .match import LINES
from .tables import WORDS, Column, Listing, whole
from .terminal import one_line

if TYPE_CHECKING:
    from ..match.candidates import Candidate
    from ..match.families import Family
    from ..match.missing import Missing
    from ..match.trios import Trio
    from .match import Report

_TYPE = Column("type")
_SIZE = Column("size", right=True)
_KEEPER = Column("kept by", least=WORDS)


def show_tables(report: Report) -> None:
    """Print the tables; what stands in them may come from anywhere."""
    if report.trios:
        show(_trios(report))
    elif report.families:
        show(_families(report))
    if report.lacking:
        show(text(""), _missing(report))


def _trios(report: Report) -> Listing:
    model = Column("model", least=WORDS)
    table = Listing(Column("trio"), model, _TYPE, _SIZE, _KEEPER, run_in=True, lead=2)
    for number, trio in enumerate(report.trios, 1):
        table.section(f"trio {number}")
        files = (("base", trio.base), ("tuned", trio.tuned), ("reference", trio.reference))
        for role, each in files:
            table.add(role, line(each.title), *_file_cells(each))
        for remark in _trio_remarks(trio, report.available):
            table.remark(line(remark))
        table.remark(whole(one_line(_command(trio))))
        if trio.also:
            titles = sorted({one_line(each.title) for each in trio.also})
            table.remark(text(f"also here: {', '.join(titles)}", "dim"))
    return table


def _command(trio: Trio) -> str:
    """Return what makes a recipe of a trio."""
    tuned = "lora" if trio.tuned.header.is_adapter else "tuned"
    files = (("base", trio.base), (tuned, trio.tuned), ("reference", trio.reference))
    options = (f"--{role} {shlex.quote(str(each.path))}" for role, each in files)
    return f"edge-eft new NAME {' '.join(options)}"


def _trio_remarks(trio: Trio, available: int) -> Iterator[str]:
    fits = "fits" if trio.fits else "does not fit"
    drafts = "exact" if trio.is_exact else "equal up to rounding"
    yield (
        f"needs {mebibytes(trio.memory)} MiB of {mebibytes(available)} free: {fits}; "
        f"ratio {trio.ratio:.2f}; drafts are {drafts}; paired {trio.why}"
    )
    asked = trio.reference if trio.tuned.header.is_adapter else trio.tuned
    if not asked.template:
        yield "tuned has no chat template in its file: name a format in the recipe (chatml)"
    if not trio.one_series:
        yield "base and pair share their vocabulary and are of two series"


def _families(report: Report) -> Listing:
    parameters = Column("parameters", right=True)
    kind = Column("is")
    table = Listing(
        Column("model", least=WORDS), kind, parameters, _TYPE, _SIZE, _KEEPER, run_in=True
    )
    told = {title for lack in report.lacking for _, title in lack.here}
    for family in report.families:
        titles = {each.title for each in family.models}
        table.section("model")
        for each in family.models[:LINES]:
            n = _count(each.header.n_parameters)
            tuned = "tuned" if each.tuned else "base"
            table.add(line(each.title), tuned, n, *_file_cells(each))
        for remark in _family_remarks(family, is_told=bool(told & titles)):
            table.remark(remark)
    return table


def _family_remarks(family: Family, *, is_told: bool) -> Iterator[Text]:
    if len(family.models) > LINES:
        yield text(f"and {len(family.models) - LINES} more of this vocabulary, which --json lists")
    if not is_told:
        yield line(family.lacks)
        if family.completion:
            name, size = family.completion.name, family.completion.size
            lacking = ", ".join(f"{role} {model}" for role, model in family.completion.lacking)
            amount = f" ({byte_size(size)} to fetch)" if size else ""
            yield line(f"missing of {name}: {lacking}; get it with")
            yield whole(f"edge-eft pull {name}{amount}")
    for large, small in family.led[:LINES]:
        files = (("base", large), ("reference", small))
        options = (f"--{role} {shlex.quote(str(each.path))}" for role, each in files)
        yield line(f"an adapter of {small.title} leads {large.title} with")
        yield whole(f"edge-eft chat {' '.join(options)} --lora ADAPTER")


def _missing(report: Report) -> Listing:
    """Return the table of single models that complete a trio."""
    table = Listing(
        Column("missing"),
        Column("model", least=WORDS),
        _SIZE,
        Column("to go with", least=WORDS),
        Column("get it with"),
        run_in=True,
    )
    for lack in report.lacking[:LINES]:
        table.add(*map(line, _missing_cells(lack)))
    if len(report.lacking) > LINES:
        table.remark(text(f"and {len(report.lacking) - LINES} more, which --json lists"))
    return table


def _missing_cells(lack: Missing) -> tuple[str, ...]:
    here = ", ".join(f"{title} ({role})" for role, title in lack.here)
    model = f"{lack.what} of {lack.repo}" if lack.repo else lack.what
    size = f"~{byte_size(lack.size)}" if lack.size else ""
    return lack.role, model, size, here, f"edge-eft pull {lack.pull}" if lack.pull else ""


def _file_cells(file: Candidate) -> tuple[Text | str, ...]:
    kind = "LoRA" if file.header.is_adapter else file.header.quantisation
    where = ", ".join(filter(None, (file.found.owner, file.found.name)))
    return line(kind), byte_size(file.header.file_size), line(where, "dim")


def _count(n_parameters: int) -> str:
    scale, unit = (1e9, "B") if n_parameters >= 1e9 else (1e6, "M")
    return f"{n_parameters / scale:.1f} {unit}"
