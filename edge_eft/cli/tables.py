"""The house's tables: bold headings, a thin rule, no borders, and lines that fit any terminal.

A `Listing` is rows in columns where these fit, and records one below the other where they do not.
`Facts` are names with what there is to say of each. Both are renderables of rich, for
`console.show`; their cells are filtered where they are made, by `text` and `line`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.box import Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .console import line, text

# Of a box the third line is the rule below the headings, the fifth the one between sections.
_LINES = "    \n    \n{0}\n    \n{0}\n{0}\n    \n    \n"
_BOX = Box(_LINES.format("────"))
_ASCII = Box(_LINES.format("----"), ascii=True)
_GAP = 2  # columns between two cells
WORDS = -1


@dataclass(frozen=True)
class Column:
    """A column of a `Listing`.

    Attributes:
        heading: what stands above it, and before its cells in a record.
        least: to how many columns of the terminal it may be narrowed, where a long word is broken;
            WORDS: to its longest word; 0: it is as wide as what is in it.
        right: figures, which end below each other.
        width: a width of its own, for rows that are shown one by one.
        named: whether a record says the heading before the cell.
    """

    heading: str
    least: int = 0
    right: bool = False
    width: int | None = None
    named: bool = True


class Clipped:
    """A text of which a cell shows so many lines, the last ending in "…", and a record all."""

    def __init__(self, content: Text, max_lines: int) -> None:
        self.text, self._max_lines = content, max_lines

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the widths that its text could have."""
        return Measurement.get(console, options, self.text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield its first lines."""
        lines = self.text.wrap(console, options.max_width)
        if len(lines) > self._max_lines:
            dots = " ..." if options.ascii_only else " …"
            last = lines[self._max_lines - 1]
            room = max(options.max_width - len(dots), 1)
            cut = last.wrap(console, room)[0]
            cut.rstrip()
            lines[self._max_lines - 1] = cut.append(dots)
        yield from lines[: self._max_lines]


@dataclass
class _Section:
    first: str  # heading of its first column
    rows: list[tuple[Sequence[RenderableType], str]] = field(default_factory=list)
    sums: int = 0  # of its rows so many at the end stand below a rule
    remarks: list[Text] = field(default_factory=list)


class Listing:
    """Rows under headings, in one section or several, whose columns have the same widths.

    Args:
        columns: the first one names its row.
        run_in: in a record the cells, which must be texts, stand in running lines.
        lead: so many cells name a record.
        headless: without headings, for a row that is shown by itself.
    """

    def __init__(
        self, *columns: Column, run_in: bool = False, lead: int = 1, headless: bool = False
    ) -> None:
        self._columns, self._run_in, self._lead, self._headless = columns, run_in, lead, headless
        self._sections: list[_Section] = []

    def section(self, first: str) -> None:
        """Begin another section, with `first` as the heading of its first column."""
        self._sections.append(_Section(first))

    def add(self, *cells: RenderableType, style: str = "", is_sum: bool = False) -> None:
        """Add a row; a sum goes below a rule. A cell of stranger's text is a `line` of it."""
        if not self._sections:
            self.section(self._columns[0].heading)
        section = self._sections[-1]
        section.rows.append((cells, style))
        section.sums += is_sum

    def remark(self, content: Text) -> None:
        """Add a text below the rows of the section; a `whole` one stays on its line."""
        self._sections[-1].remarks.append(content)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the sections, as tables if their columns fit."""
        widths = self._widths(console, options)
        for number, section in enumerate(self._sections):
            if number:
                yield Text()
            if widths:
                yield self._table(section, widths, options)
            else:
                yield from self._records(section, options)
            yield from map(_indented, section.remarks) if widths else section.remarks

    def _widths(self, console: Console, options: ConsoleOptions) -> list[int] | None:
        """Return the columns' widths, the widest narrowed until all fit; None if they do not."""
        ranges = [self._range(index, console, options) for index in range(len(self._columns))]
        widths = [most for _, most in ranges]
        excess = sum(widths) + _GAP * (len(widths) - 1) - options.max_width
        for _ in range(excess):
            narrower = [i for i, (least, _) in enumerate(ranges) if least < widths[i]]
            if not narrower:
                return None
            widths[max(narrower, key=lambda i: widths[i])] -= 1
        return widths

    def _range(self, index: int, console: Console, options: ConsoleOptions) -> tuple[int, int]:
        """Return how narrow a column may be, and how wide it is where there is room for all."""
        column, unlimited = self._columns[index], options.update(width=10_000)
        heads = [s.first for s in self._sections] if index == 0 else [column.heading]
        head = max(map(cell_len, heads), default=0)
        cells = [row[index] for section in self._sections for row, _ in section.rows]
        measured = [Measurement.get(console, unlimited, cell) for cell in cells]
        most = column.width or max([head, *(each.maximum for each in measured)])
        least = {0: most, WORDS: max([head, *(each.minimum for each in measured)])}
        return min(least.get(column.least, max(head, column.least)), most), most

    def _table(self, section: _Section, widths: Sequence[int], options: ConsoleOptions) -> Table:
        table = Table(
            box=_ASCII if options.ascii_only else _BOX,
            show_edge=False,
            pad_edge=False,
            padding=(0, _GAP - 1, 0, 0),
            show_header=not self._headless,
            header_style="bold",
            border_style="dim",
        )
        heads = [section.first, *(column.heading for column in self._columns[1:])]
        for heading, column, width in zip(heads, self._columns, widths, strict=True):
            justify: JustifyMethod = "right" if column.right else "left"
            table.add_column(text(heading), justify=justify, width=width, overflow="fold")
        for number, (cells, style) in enumerate(section.rows, 1):
            ends = number == len(section.rows) - section.sums and section.sums > 0
            table.add_row(*cells, style=style, end_section=ends)
        return table

    def _records(self, section: _Section, options: ConsoleOptions) -> Iterator[RenderableType]:
        if not self._headless:
            yield text(section.first, "bold")
            yield text(("-" if options.ascii_only else "─") * options.max_width, "dim")
        for number, (cells, style) in enumerate(section.rows):
            named = [
                (column.heading * column.named, cell)
                for column, cell in [*zip(self._columns, cells, strict=True)][self._lead :]
                if not _is_empty(cell)
            ]
            if self._run_in:
                parts = (Text(f"{name} " * bool(name)) + _text_of(cell) for name, cell in named)
                below: RenderableType = Text("; ").join(parts)
            else:
                below = _grid(named)
            if number and not self._run_in:
                yield Text()
            title = Text("  ").join(map(_text_of, cells[: self._lead]))
            title.stylize(style)
            yield title
            if named:
                yield Padding(below, (0, 0, 0, 2), style=style)


class Facts:
    """Names, and what there is to say of each, with hanging lines.

    A text that is not to be wrapped (a path, a hash, a command: whoever copies it wants it whole)
    stays on one line, however narrow the terminal is.
    """

    def __init__(self, facts: Iterable[tuple[str, Text | str]], *, style: str = "") -> None:
        self._facts = [(name, _text_of(told)) for name, told in facts]
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a line or a few for each."""
        width = max((cell_len(name) for name, _ in self._facts), default=0) + _GAP
        for name, told in self._facts:
            start = text(name, self._style)
            if told.no_wrap and width + told.cell_len <= options.max_width:
                yield Text.assemble(start, " " * (width - cell_len(name)), told)
            elif told.no_wrap:
                yield start
                yield _indented(told)
            else:
                yield _grid([(start, told)], width - _GAP)


def whole(content: object, style: str = "") -> Text:
    """Return one line of text that is never wrapped, to be copied."""
    return line(content, style, no_wrap=True, overflow="ignore")


def _indented(remark: Text) -> RenderableType:
    if remark.no_wrap:
        return Text.assemble("  ", remark, no_wrap=True, overflow="ignore")
    return Padding(remark, (0, 0, 0, 2))


def _grid(named: Iterable[tuple[str | Text, RenderableType]], width: int | None = None) -> Table:
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(width=width, no_wrap=True)
    grid.add_column(overflow="fold")
    for name, told in named:
        grid.add_row(_text_of(name), told.text if isinstance(told, Clipped) else told)
    return grid


def _text_of(cell: RenderableType) -> Text:
    if isinstance(cell, Clipped):
        return cell.text
    return cell if isinstance(cell, Text) else text(cell)


def _is_empty(cell: RenderableType) -> bool:
    return isinstance(cell, str | Text | Clipped) and not _text_of(cell).plain
