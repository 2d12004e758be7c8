"""Markdown for a terminal: no word is lost or cut, and a line stays a line."""

import os

import pytest
from helpers.screen import Screen, shown_on
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from edge_eft.cli.console import console
from edge_eft.cli.markdown import MarkdownLines

WIDTHS = (100, 40)


def terminal(columns=100, no_color=""):
    with shown_on(Screen()):
        os.environ["NO_COLOR"] = no_color  # until it is put back
        out = console()
    out.width = columns
    return out


def rendered(text, columns=100, **more):
    """The lines of a text on a terminal of so many columns."""
    out = terminal(columns, **more)
    lines, markdown = [], MarkdownLines()
    for line in text.split("\n"):
        lines += markdown.take(line, out)
    return lines + markdown.rest(out)


def plain(text, columns=100, **more):
    return "\n".join(line.plain.rstrip() for line in rendered(text, columns, **more))


def styles(text):
    """(piece, style) of all that has one."""
    return [
        (line.plain[span.start : span.end], str(span.style))
        for line in rendered(text)
        for span in line.spans
    ]


# -- what stays as it is -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "A plain sentence.",
        "  leading blanks,\n      and more of them\nand none",
        "a poem\nof lines\n\n\nwithout blank ones",
        "1. one\n3. three\n3) again\n1986. a year",
        "- 3 apples\n+ 2 pears\n-5 degrees\n+ \n-",
        "snake_case, __init__ and __name__ == '__main__'",
        "2*3*4 = 24, (a+b)*(c)*d, a * b * c, a**2 + b**2, *.py and **/*.py, f(*a, **b)",
        "x_1 and x_2, $x_1 + x_2$, \\(a_1\\), \\[x\\], C:\\_a\\*b, 100\\%",
        "a < b > c, <b>bold</b>, <script>, <http://a.b>, vector<int>, &lt; &amp; &nbsp;",
        "f[i](x) and [text](target) and [1], [x]: http://a.b 'title'",
        "Title\n===\nText\n--\n~~gone~~ stays",
        "#include <stdio.h>\n#1 is first\n# of items: 5\n####### seven",
        "> 18 years\n>>> print(x)\n>quoted",
        "a | b\nc || d\n| - |\n|",
        "```\n*code*  as `it` is\n\n\n    indented\n```\n*",
        "```not` a fence\n`````",
        "~~~ python\n```\n- ~~~\n~~~~ x\nis not its end\n~~~~",
        "an `unfinished span and **an unfinished bold and *",
        "👩\u200d💻 ❤\ufe0f مرحبا שלום e\u0301",
        "a\u00a0b\u3000c",
        "ends in two blanks  \nor a backslash\\\nand goes on",
        "* * x\n** x **\n*****a",
    ],
)
def test_what_is_not_surely_markdown_stays_as_it_is(text):
    shown = plain(text)
    expected = "\n".join(line.rstrip() for line in text.split("\n"))
    assert shown.replace("•", "*") == expected


# -- what is rendered ----------------------------------------------------------------------


def test_emphasis_and_code_have_styles_for_marks():
    text = "It is **bold**, *leaning*, _so_ and ***both***: `co*d*e` `` a`b ``; **強調**です."
    assert plain(text) == "It is bold, leaning, so and both: co*d*e a`b; 強調です."
    assert styles(text) == [
        ("bold", "bold"),
        ("leaning", "italic"),
        ("so", "italic"),
        ("both", "italic bold"),
        ("co*d*e", "bold cyan"),
        ("a`b", "bold cyan"),
        ("強調", "bold"),
    ]


def test_headings_keep_their_marks_and_rules_are_lines():
    assert styles("## A *b*") == [("## A ", "bold"), ("b", "bold italic")]
    assert plain("---\n* * *\n___", 40) == "\n".join(["─" * 40] * 3)


def test_a_link_shows_where_it_leads():
    text = 'See [*the* docs](https://a.b/c_d?e=%41&amp;f "Manual") and [x](mailto:a@b.c).'
    assert plain(text) == ('See the docs (https://a.b/c_d?e=%41&f "Manual") and x (mailto:a@b.c).')
    assert plain("[https://a.b](https://a.b)") == "https://a.b"
    assert plain("![a picture](https://a.b/c.png)") == "!a picture (https://a.b/c.png)"
    assert plain("[x](javascript:alert(1)) [y](file:///etc/passwd)") == (
        "[x](javascript:alert(1)) [y](file:///etc/passwd)"
    )


def test_lists_hang_and_quotes_repeat_their_mark():
    assert plain(f"* {'one ' * 9}\n  10. {'two ' * 9}\n> {'three ' * 9}", 40) == (
        "• one one one one one one one one one\n"
        "  10. two two two two two two two two\n"
        "      two\n"
        "> three three three three three three\n"
        "> three three three"
    )


def test_deep_indentation_leaves_room_for_words():
    assert plain(" " * 35 + "- some words and more", 40) == (" " * 35 + "-\nsome words and more")


def test_code_is_not_wrapped_so_that_it_can_be_copied():
    line = "x = " + "1 + " * 40
    assert plain(f"```python\n{line}\n```", 40) == f"```python\n{line.rstrip()}\n```"
    assert ("```python", "dim") in styles("```python\nx\n")
    assert ("x *y*", "cyan") in styles("- ```\n  x\n  ```\n```\nx *y*")


def test_a_table_fits_its_terminal():
    table = "| Name | What it *is* |\n|:--|--:|\n| `a\\|b` | some words of a cell | 3 |\n| c |"
    assert plain(table).splitlines() == [
        "Name            What it is",
        "─" * 29,
        "a|b   some words of a cell  3",
        "c",
    ]
    assert plain(f"{table}\nand | on\nend", 26).splitlines() == [
        "Name         What it is",
        "─" * 26,
        "a|b     some words of a  3",
        "                   cell",
        "c",
        "and                  on",
        "end",
    ]


def test_a_table_whose_words_do_not_fit_stays_as_it_is():
    table = f"| {'a' * 30} | {'b' * 30} |\n|---|---|\n| 1 | 2 |"
    assert plain(table, 40).replace("\n", " ").split() == table.replace("\n", " ").split()


def test_without_styles_the_marks_stay_for_they_say_more_than_nothing():
    text = f"# It\n* **bold** and `code`, [x](http://a.b)\n{'word ' * 12}"
    assert plain(text, 40, no_color="1").splitlines() == [
        "# It",
        "• **bold** and `code`, [x](http://a.b)",
        "word word word word word word word word",
        "word word word word",
    ]


# -- whatever comes ------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        [
            *"*_`#>-|[]()<>&\n \\+.:\"'",
            *("**", "__", "```", "\n\n", "| ", "|-", "---", "1. ", "- ", "    ", "\t"),
            *("one", "two", "http://a", "](http://b)", "日本", "é", "&amp;", "<b>"),
        ]
    ),
    max_size=40,
).map("".join)


@pytest.mark.parametrize("columns", WIDTHS)
@given(text=PIECES)
def test_no_letter_is_lost_whatever_comes(columns, text):
    shown = plain(text, columns)
    assert "".join(filter(str.isalnum, shown)) == "".join(filter(str.isalnum, text))


@given(text=PIECES)
def test_lines_that_are_no_code_fit_and_words_are_not_cut(text):
    fences = "`" * 3, "~" * 3
    for line in rendered(text, 40):
        if not any(fence in text for fence in fences):
            assert cell_len(line.plain.rstrip()) <= 40


@given(text=PIECES)
def test_a_preview_is_what_comes_if_the_reply_ends_there(text):
    out, markdown, final = terminal(), MarkdownLines(), []
    *whole, last = text.split("\n")
    for line in whole:
        markdown.preview(line[: len(line) // 2], out)
        final += markdown.take(line, out)
    assert final + markdown.preview(last, out) == rendered(text)


def test_a_stream_without_unicode_gets_ascii(monkeypatch):
    monkeypatch.setattr("edge_eft.cli.markdown.supports", str.isascii)
    assert plain("* a\n---\n| a | b |\n|-|-|\n| 1 | 2 |", 40).isascii()
