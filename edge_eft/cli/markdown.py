"""Markdown for a terminal, line by line: what a reply says, in the styles that it asks for.

Models write Markdown, and much that only looks like it: products, patterns, names of Python,
poems, sums. So a line stays a line, its indentation, numbers and marks stay what they are, and no
more is taken away than the marks of emphasis and code, the brackets of links and the pipes of
tables. HTML, entities and escapes are text. Emphasis ends in the line in which it begins, so that a
line is final as soon as its end is there; only a table waits for its own.

markdown-it reads what is within a line; rich measures, wraps and styles. Nothing is printed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from functools import cache
from itertools import zip_longest
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.rules_inline.state_inline import Delimiter, StateInline
from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from .terminal import supports

_TAB = 4
_MARK, _CODE, _HEADING = "dim", "cyan", "bold"
_STYLES = {"strong": "bold", "em": "italic", "code": f"bold {_CODE}", "a": "underline"}
_LEAST = 12  # columns that are left for text, however far it is indented

_LEAD = r"(?P<lead>[ >]*)(?P<mark>(?:[-+*]|\d{1,9}[.)])(?: +|$))?"
_FENCE = re.compile(r"[ >]*(?:(?:[-+*]|\d{1,9}[.)]) +)*(?P<marks>`{3,}|~{3,})[^`]*")
_RULE = re.compile(r"([-*_])(?: *\1){2,} *")
_HEAD = re.compile(r"#{1,6}(?: .*)?")
_FLOW = re.compile(_LEAD)
_ALIGNS = re.compile(r" *\|?( *:?-+:? *\|)* *:?-+:? *\|? *")
_TARGET = re.compile(r"(?:https?|ftp)://|mailto:", re.IGNORECASE)
# Emphasis stands between blanks or punctuation: 2*3*4, (a)*(b)*(c), **/*.py and f(*a, *b) are none.
_NO_BEGIN_AFTER = re.compile(r"[A-Za-z0-9)\]}\\]")
_NO_BEGIN_BEFORE = re.compile(r"[\s./,;:!?)\]}=|\\]")
_NO_END_AFTER = re.compile(r"[\s/(\[{=|\\]")
_NO_END_BEFORE = re.compile(r"[A-Za-z0-9(\[{]")


class _Row(NamedTuple):
    """A line before it is wrapped: what stands before it, before its further rows, and its text."""

    first: Text
    further: Text
    body: Text


class MarkdownLines:
    """Takes the lines of a reply and gives those of a terminal: of `Text`, without line ends.

    A line of code is longer than the terminal if it must be, so that it can be copied; all others
    fit. A console says how wide it is.
    """

    def __init__(self) -> None:
        self._fence = ""  # the marks that opened the block of code that we are in
        self._held: list[str] = []  # the lines of a table, or one that may be its first
        self._widths: list[int] = []  # of a table's columns, when it is printed row by row
        self._begun: _Row | None = None  # of a line whose beginning is printed

    def take(self, line: str, console: Console) -> list[Text]:
        """Return the lines that are final when `line` is there, the next of the reply."""
        line = line.expandtabs(_TAB)
        if self._begun or self._fence:
            return self._lines(line, console)
        if self._widths:
            cells = _cells(line)
            self._widths = _wider(self._widths, cells, console) if "|" in line else []
            if self._widths:
                aligns: list[JustifyMethod] = ["left"] * len(self._widths)
                return _table([cells], aligns, self._widths, console, head=False)
        if len(self._held) > 1 and "|" in line:
            self._held.append(line)
            return []
        if len(self._held) == 1 and _is_table(self._held[0], line):
            self._held.append(line)
            return []
        done = self.rest(console)
        if "|" in line and not _FENCE.fullmatch(line):
            self._held = [line]
            return done
        return done + self._lines(line, console)

    def rest(self, console: Console) -> list[Text]:
        """Return what is held back, for the reply or its table ends here."""
        held, self._held = self._held, []
        rows = [_cells(line) for i, line in enumerate(held) if i != 1]
        if len(held) > 1:
            aligns, widths = _aligns(held[1], rows), _widths(rows, console)
            if widths:
                return _table(rows, aligns, widths, console)
        return [line for each in held for line in self._lines(each, console)]

    def preview(self, line: str, console: Console) -> list[Text]:
        """Return the lines that would end the reply if `line` were its last; nothing is taken."""
        ahead = copy(self)
        ahead._held = list(self._held)
        return ahead.take(line, console) + ahead.rest(console)

    def begin(self, line: str, console: Console) -> tuple[list[Text], str]:
        """Make final what can be of an unfinished last line, and of the table before it.

        For what no screen can hold. Returns the lines, and what is left of `line`.
        """
        if self._held:
            rows = [_cells(each) for i, each in enumerate(self._held) if i != 1]
            widths = _widths(rows, console) if len(self._held) > 1 else []
            done, self._widths = self.rest(console), widths
            return done, line
        if not line or self._fence or _FENCE.fullmatch(line):
            return [], line
        line = line.expandtabs(_TAB)
        at = line.rfind(" ") if line.rfind(" ") > len(line) - 80 else len(line) - 1
        row = self._row(line[:at], console)
        *done, last = _wrapped(row, console)
        before = row.further if done else row.first
        self._begun = _Row(before, row.further, last[len(before) :])
        return done, line[at:]

    def _lines(self, line: str, console: Console) -> list[Text]:
        """Return the lines of one that is not of a table."""
        if self._fence:
            marks = line.strip(" >")
            if not marks.startswith(self._fence) or marks.strip(self._fence[0]):
                return [_styled(line, _CODE)]
            self._fence = ""
            return [_styled(line, _MARK)]
        if (opening := _FENCE.fullmatch(line)) and not self._begun:
            self._fence = opening["marks"]
            return [_styled(line, _MARK)]
        if _RULE.fullmatch(line) and not self._begun:
            return [_styled(("─" if supports("─") else "-") * console.width, _MARK)]
        row, self._begun = self._row(line, console), None
        return _wrapped(row, console)

    def _row(self, line: str, console: Console) -> _Row:
        if self._begun:
            before, further, body = self._begun
            return _Row(before, further, body + _inline(line, console))
        if _HEAD.fullmatch(line):
            return _Row(Text(), Text(), _inline(line, console, _HEADING))
        found = _FLOW.match(line)
        lead, mark = (found["lead"], found["mark"] or "") if found else ("", "")
        body = _inline(line[len(lead + mark) :], console)
        first = _styled(lead, _MARK)
        further = first + Text(" " * len(mark))
        if mark.startswith("*") and supports("•"):
            mark = "•" + mark[1:]
        first += Text(mark)
        if cell_len(further.plain) > console.width - _LEAST:
            return _Row(Text(), Text(), first + body)
        return _Row(first, further, body)


def _wrapped(row: _Row, console: Console) -> list[Text]:
    """Return the rows of a line: of whole words, if they fit."""
    width = console.width - cell_len(row.further.plain)
    rows = row.body.wrap(console, width, overflow="fold") or [Text()]
    return [(row.further if i else row.first) + each for i, each in enumerate(rows)]


def _styled(text: str, style: str) -> Text:
    """Return a text whose style is a span, as those of `_inline` are, so that they compare."""
    return Text().append(text, style)


# -- within a line -------------------------------------------------------------------------


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("zero").enable(["backticks", "link", "balance_pairs", "emphasis"])
    parser.inline.ruler.at("emphasis", _emphasis)
    parser.validateLink = lambda url: bool(_TARGET.match(url))  # type: ignore[method-assign]
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    return parser


def _emphasis(state: StateInline, silent: bool) -> bool:
    """Take a run of * or _, as markdown-it's rule does, where it is hardly anything else."""
    marker = state.src[state.pos]
    if silent or marker not in "*_":
        return False
    scanned = state.scanDelims(state.pos, marker == "*")
    end = state.pos + scanned.length
    before, after = state.src[state.pos - 1 : state.pos], state.src[end : end + 1]
    is_name = marker == "_" and scanned.length > 1  # as in __init__
    may_open = not (is_name or _NO_BEGIN_AFTER.match(before) or _NO_BEGIN_BEFORE.match(after))
    may_close = not (is_name or _NO_END_AFTER.match(before) or _NO_END_BEFORE.match(after))
    for _ in range(scanned.length):
        state.push("text", "", 0).content = marker
        state.delimiters.append(
            Delimiter(
                marker=ord(marker),
                length=scanned.length,
                token=len(state.tokens) - 1,
                end=-1,
                open=scanned.can_open and may_open,
                close=scanned.can_close and may_close,
            )
        )
    state.pos = end
    return True


def _inline(text: str, console: Console, style: str = "") -> Text:
    """Return the text within a line in its styles; a link's target stands behind it.

    Where there are no styles, as with NO_COLOR, the marks stay.
    """
    if console.color_system is None:
        return Text(text)
    styles, target, begins = [style] if style else [], "", 0
    out = Text()
    for token in _parser().parseInline(text)[0].children or ():
        if token.nesting > 0:
            styles.append(_STYLES[token.tag])
            target, begins = (
                (_target(token.attrs), len(out)) if token.tag == "a" else (target, begins)
            )
        elif token.nesting < 0:
            styles.pop()
            if token.tag == "a" and out.plain[begins:] != target:
                out.append(f" ({target})", " ".join(styles))
        else:
            own = [_STYLES["code"]] if token.type == "code_inline" else []
            out.append(token.content, " ".join([*styles, *own]))
    return out


def _target(attrs: dict[str, str | int | float]) -> str:
    title = f' "{attrs["title"]}"' if attrs.get("title") else ""
    return f"{attrs.get('href', '')}{title}"


# -- tables --------------------------------------------------------------------------------


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _is_table(head: str, line: str) -> bool:
    """Return whether `line` below `head` makes a table of it, as GitHub's Markdown has them."""
    return "|" in line and bool(_ALIGNS.fullmatch(line)) and len(_cells(head)) == len(_cells(line))


def _aligns(line: str, rows: list[list[str]]) -> list[JustifyMethod]:
    kinds: dict[tuple[bool, bool], JustifyMethod] = {(False, True): "right", (True, True): "center"}
    aligns = [kinds.get((c.startswith(":"), c.endswith(":")), "left") for c in _cells(line)]
    return aligns + ["left"] * (max(map(len, rows)) - len(aligns))


def _widths(rows: list[list[str]], console: Console) -> list[int]:
    """Return the columns' widths; none if their longest words are too wide."""
    columns = [
        [_inline(row[i], console).plain if i < len(row) else "" for row in rows]
        for i in range(max(map(len, rows)))
    ]
    widths = [max(map(cell_len, column)) or 1 for column in columns]
    least = [max(map(_longest_word, column)) for column in columns]
    for _ in range(_total(widths) - console.width):
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[widest] <= least[widest]:
            return []
        widths[widest] -= 1
    return widths


def _wider(widths: list[int], cells: list[str], console: Console) -> list[int]:
    """Return columns' widths in which a further row fits, too; none if there are none."""
    least = [_longest_word(_inline(cell, console).plain) for cell in cells]
    wider = [max(now, new) for now, new in zip_longest(widths, least, fillvalue=1)]
    return wider if _total(wider) <= console.width else []


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=1)


def _total(widths: list[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _table(
    rows: list[list[str]],
    aligns: list[JustifyMethod],
    widths: list[int],
    console: Console,
    *,
    head: bool = True,
) -> list[Text]:
    look = box.SIMPLE_HEAD if supports("─") else box.ASCII_DOUBLE_HEAD
    table = Table(
        box=look,
        padding=(0, 1, 0, 0),  # with the box's own, two blanks
        show_edge=False,
        pad_edge=False,
        show_header=head,
        header_style="bold",
        border_style=_MARK,
    )
    names = rows[0] if head else []
    for i, (align, width) in enumerate(zip(aligns, widths, strict=True)):
        title = _inline(names[i], console) if i < len(names) else ""
        table.add_column(title, justify=align, width=width, overflow="fold")
    for row in rows[head:]:
        table.add_row(*(_inline(cell, console) for cell in row))
    return list(_as_lines(table, console))


def _as_lines(table: Table, console: Console) -> Iterator[Text]:
    for segments in console.render_lines(table, pad=False):
        line = Text()
        for segment in segments:
            line.append(segment.text, segment.style)
        line.rstrip()
        yield line
