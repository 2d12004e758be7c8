"""A reply drawn piece by piece: the screen at its end is that of the whole."""

import threading

import pytest
from helpers.cli_tools import wait_for
from helpers.screen import Screen, shown_on
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from edge_eft.cli.reply_view import LiveLines, MarkdownWriter, ReplyView

PIECES = st.lists(
    st.sampled_from(
        [
            *("*", "_", "`", "#", ">", "-", "|", "[", "]", "(", ")", "<", ">", "&", "\n", " "),
            *("**", "```", "\n\n", "| ", "|-", "|\n", "---", "1. ", "- ", "](http://b)", "    "),
            *("one ", "two", "a longer word", "日本", "👩\u200d💻", "e\u0301"),
        ]
    ),
    max_size=60,
)


def drawn(pieces, columns=40, rows=24, sizes=()):
    """The screen after a reply in these pieces; before each, the terminal's size may change."""
    screen = Screen(columns, rows)
    with shown_on(screen):
        view = ReplyView()
        for piece in pieces:
            view.show(piece)
        view.end()
    return screen


@given(pieces=PIECES)
def test_the_pieces_make_no_difference_at_the_end(pieces):
    text = "".join(pieces)
    shown = drawn(pieces, rows=200).text()
    assert shown == drawn([text], rows=200).text()
    assert shown == drawn(text, rows=200).text()
    assert shown == "" or shown.endswith("\n")


@given(pieces=PIECES)
def test_no_word_is_lost_or_said_twice_where_the_screen_is_too_small(pieces):
    words = " ".join("".join(pieces)).split()
    shown = drawn(pieces, columns=40, rows=4).text()
    letters = "".join(filter(str.isalnum, shown))
    assert letters == "".join(filter(str.isalnum, "".join(words)))


def test_words_are_not_cut_where_there_are_fewer_than_40_columns():
    words = [f"{word} " for word in ["日本語", "narrow", "terminals", "**wrap**", "words"] * 5]
    shown = drawn(words, columns=17)
    assert set(shown.text().split()) == {word.strip(" *") for word in words}


def test_a_wide_character_is_not_cut_in_two():
    with shown_on(Screen(15)):
        assert LiveLines().height([Text("日" * 30), Text("x" * 60), Text()]) == 5 + 4 + 1


WORDS = ["word", "by", "word", "a", "paragraph", "grows"]


def test_words_are_never_cut_and_few_rows_are_drawn_again():
    words = [f"{word} " for word in WORDS * 20]
    screen = drawn(words)
    assert set(screen.text().split()) == set(WORDS)
    assert screen.moves == 0, "a word that does not fit is drawn in the next row"


def test_a_reply_taller_than_the_screen_is_all_there():
    paragraph = [f"n{i} " for i in range(400)]
    code = ["```\n", *(f"line {i}\n" for i in range(60)), "```\n"]
    table = ["| a | b |\n|---|---|\n", *(f"| r{i} | {i} |\n" for i in range(60)), "\nend"]
    shown = drawn([*paragraph, "\n", *code, *table], rows=10).text().split("\n")
    assert " ".join(shown).split()[:400] == [f"n{i}" for i in range(400)]
    assert [line for line in shown if line.startswith("line")] == [f"line {i}" for i in range(60)]
    rows = [line.split() for line in shown if line.startswith("r")]
    assert rows == [[f"r{i}", str(i)] for i in range(60)]
    assert shown[-2:] == ["end", ""]


def test_emphasis_that_ends_in_another_row_is_drawn_again():
    pieces = [f"{word} " for word in ["**one", *["two"] * 30, "three**", "four"]]
    assert drawn(pieces).text().replace("\n", " ").split() == [
        "one",
        *["two"] * 30,
        "three",
        "four",
    ]


def test_a_table_is_drawn_when_it_shows():
    screen = Screen(40, 24)
    with shown_on(screen):
        view = ReplyView()
        view.show("Here:\n| a | b |\n|")
        assert screen.text() == "Here:\n| a | b |\n|"
        view.show("---|---|\n| 1 ")
        assert screen.text() == "Here:\na  b\n────\n1"
        view.show("| 22 |\n\nThat is all.")
        view.end()
    assert screen.text() == "Here:\na  b\n─────\n1  22\n\nThat is all.\n"


def test_the_line_under_way_follows_the_width():
    screen = Screen(60)
    with shown_on(screen):
        view = ReplyView()
        view.show(f"First.\n{'word ' * 20}")
        for columns in (40, 100):
            screen.resize(columns)
            view.show("end ")
            in_a_row = columns // 5
            words = ["word"] * 20 + ["end"] * (1 if columns == 40 else 2)
            rows = [words[i : i + in_a_row] for i in range(0, len(words), in_a_row)]
            assert screen.text().split("\n") == ["First.", *map(" ".join, rows)]


def test_blank_lines_at_the_end_are_not_shown():
    assert drawn(["One.", "\n", "\n", "\n"]).text() == "One.\n"
    assert drawn(["\n", "\n"]).text() == ""
    assert drawn([]).text() == ""


# -- with a thread -------------------------------------------------------------------------


def test_the_first_piece_shows_at_once_and_a_burst_is_drawn_together():
    screen = Screen()
    with shown_on(screen):
        writer = MarkdownWriter()
        writer.write("First")
        wait_for(lambda: screen.text() == "First")
        for _ in range(1000):
            writer.write(" word")
        writer.close()
    assert screen.text().split() == ["First", *["word"] * 1000]
    assert screen.drawn < 200


def test_what_a_model_says_is_filtered_first_however_it_is_cut():
    screen = Screen()
    with shown_on(screen):
        writer = MarkdownWriter()
        for char in "a\x1b[31mb\x1b]0;title\x07c\x9b2J\u202ed\re":
            writer.write(char)
        writer.close()
    assert screen.text() == "abcde\n"


def test_a_terminal_that_has_gone_is_told_to_who_writes():
    class Gone(Screen):
        def write(self, data):
            raise OSError(5, "Input/output error")

    with shown_on(Gone()):
        writer = MarkdownWriter()
        writer.write("a")
        writer._drawer.join(5)
        with pytest.raises(OSError, match="Input/output"):
            writer.write("b")
        with pytest.raises(OSError, match="Input/output") as raised:
            writer.close()
    assert raised.value.filename == "stdout"


def test_nothing_is_left_of_a_reply_without_text():
    screen = Screen()
    before = threading.active_count()
    with shown_on(screen):
        MarkdownWriter().close()
    assert screen.text() == ""
    assert threading.active_count() == before
