"""The house's tables: what fits stands in columns, what does not one below the other."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from edge_eft.cli.console import console, line, show, text
from edge_eft.cli.tables import WORDS, Clipped, Column, Facts, Listing, whole


@pytest.fixture
def shown(capsys, monkeypatch):
    """The lines that `show` prints on so many columns."""

    def run(*renderables, columns=100):
        monkeypatch.setenv("COLUMNS", str(columns))
        show(*renderables)
        return capsys.readouterr().out.splitlines()

    return run


def listing(**how):
    columns = (Column("name", least=WORDS), Column("size", right=True), Column("notes", least=14))
    table = Listing(*columns, run_in=True, **how)
    table.section("here")
    table.add(
        "one", "4.8 MB", Clipped(text("so much of it that a line of eighty cannot hold " * 2), 1)
    )
    table.section("not here")
    table.add("a-much-longer-name", "12 GB", "few", style="dim")
    return table


def test_sections_have_columns_of_one_width_and_lines_end_where_their_text_does(shown):
    assert shown(listing(), columns=60) == [
        "here                  size  notes",
        "─" * 60,
        "one                 4.8 MB  so much of it that a line of …",
        "",
        "not here              size  notes",
        "─" * 60,
        "a-much-longer-name   12 GB  few",
    ]


def test_where_columns_do_not_fit_records_stand_one_below_the_other_with_nothing_left_out(shown):
    table = listing()
    table.add("x", "", "", is_sum=True)
    table.remark(text("a remark"))
    assert shown(table, columns=40) == [
        "here",
        "─" * 40,
        "one",
        "  size 4.8 MB; notes so much of it that",
        "  a line of eighty cannot hold so much",
        "  of it that a line of eighty cannot",
        "  hold",
        "",
        "not here",
        "─" * 40,
        "a-much-longer-name",
        "  size 12 GB; notes few",
        "x",
        "a remark",
    ]


def test_records_whose_cells_are_longer_have_a_line_for_each(shown):
    table = Listing(Column("question"), Column("base"), Column("truth", named=False))
    table.add("Where is it?" * 4, "I do not know.", "Japan")
    table.add("And who?", "", "Nobody")
    assert shown(table, columns=40) == [
        "question",
        "─" * 40,
        "Where is it?Where is it?Where is",
        "it?Where is it?",
        "  base  I do not know.",
        "        Japan",
        "",
        "And who?",
        "    Nobody",
    ]


def test_a_sum_stands_below_a_rule_and_a_remark_below_all(shown):
    table = Listing(Column("MiB"), Column("sum", right=True))
    table.add("base", "12.8")
    table.add("together", "39.8", is_sum=True)
    table.remark(text("a remark"))
    table.remark(whole("a command that is to be copied " * 4))
    assert shown(table, columns=40) == [
        "MiB        sum",
        "─" * 14,
        "base      12.8",
        "─" * 14,
        "together  39.8",
        "  a remark",
        "  " + " ".join(["a command that is to be copied"] * 4),
    ]


def test_wide_characters_take_two_columns_and_emoji_stay_together(shown):
    table = Listing(Column("name"), Column("n"))
    table.add("日本語のテキスト", "1")
    table.add("👩‍🚀", "2")
    _, _, wide, emoji = shown(table)
    assert wide == "日本語のテキスト  1"
    assert emoji.startswith("👩‍🚀 ")
    narrow = shown(Facts([("x", "日本語のテキスト" * 3)]), columns=40)
    assert [cell_len(each) for each in narrow] == [39, 15]


def test_what_is_to_be_copied_stays_on_one_line(shown):
    path = "/a path/" + "x" * 50
    facts = Facts([("license", "one two " * 8), ("path", whole(path)), ("to", whole("short"))])
    assert shown(facts, columns=40) == [
        "license  one two one two one two one two",
        "         one two one two one two one two",
        "path",
        f"  {path}",
        "to       short",
    ]


def test_a_stream_without_unicode_has_rules_and_dots_in_ascii(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    show(listing())
    out.flush()
    rows = out.buffer.getvalue().decode().splitlines()
    assert rows[1] == "-" * 60
    assert rows[2].endswith("a line of ...")


CELLS = st.text("ab 日é👩\u0301-", max_size=70)


@given(
    st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4),
    st.lists(st.sampled_from([0, WORDS, 9]), min_size=3, max_size=3),
    st.booleans(),
    st.integers(40, 100),
)
def test_every_line_fits_and_every_cell_is_there(rows, leasts, run_in, width):
    table = Listing(
        *(Column(name, least) for name, least in zip("xyz", leasts, strict=True)), run_in=run_in
    )
    for row in rows:
        table.add(*map(line, row))
    rendered = console()
    rendered.width = width
    with rendered.capture() as captured:
        rendered.print(table)
    assert max(map(cell_len, captured.get().splitlines())) <= width
    letters = sum(cell.count("a") for row in rows for cell in row)
    assert captured.get().count("a") == letters
