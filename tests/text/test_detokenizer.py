"""Streamed text: whole characters, and no part of a stop string."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.errors import RequestError
from edge_eft.text.detokenizer import TextStream


def stream(chunks, stop=()):
    """Push chunks of bytes as tokens 0, 1, …. Returns the stream and what each push gave."""
    text = TextStream(chunks.__getitem__, stop)
    return text, [text.push(i) for i in range(len(chunks))]


def cut(data, places):
    places = sorted({0, len(data), *(p for p in places if p < len(data))})
    return [data[a:b] for a, b in pairwise(places)]


def test_an_emoji_split_over_tokens_comes_whole():
    text, shown = stream([b"a \xf0\x9f", b"\x98", b"\x80 b"])
    assert shown == ["a ", "", "😀 b"]
    assert text.flush() == ""
    assert text.text == "a 😀 b"


def test_a_cut_character_at_the_end_becomes_the_replacement_character():
    text, shown = stream([b"a\xf0\x9f"])
    assert shown == ["a"]
    assert text.flush() == "\ufffd"
    assert text.text == "a\ufffd"


def test_bytes_that_are_not_utf8_are_replaced_and_do_not_stop_the_text():
    _, shown = stream([b"a\xff", b"b"])
    assert "".join(shown) == "a\ufffdb"


def test_a_stop_string_over_three_tokens_never_shows():
    text, shown = stream([b"It is Paris.\n", b"Use", b"r:", b" more"], ["\nUser:"])
    assert shown == ["It is Paris.", "", "", ""]
    assert text.finished
    assert text.flush() == ""
    assert text.text == "It is Paris."


def test_what_was_held_back_in_vain_comes_later():
    text, shown = stream([b"a\nUs", b"ual"], ["\nUser:"])
    assert shown == ["a", "\nUsual"]
    assert not text.finished


def test_what_is_held_back_at_the_end_comes_with_flush():
    text, shown = stream([b"a\nUser"], ["\nUser:"])
    assert shown == ["a"]
    assert text.flush() == "\nUser"
    assert text.text == "a\nUser"


def test_of_two_stop_strings_the_one_that_is_complete_first_ends_the_reply():
    for chunks in ([b"xabcde"], [b"xab", b"cd", b"e"]):
        text, _ = stream(chunks, ["abcde", "cd"])
        assert text.text == "xab"


def test_of_two_stop_strings_complete_at_once_the_longer_is_cut():
    text, _ = stream([b"xabcd"], ["cd", "abcd"])
    assert text.text == "x"


def test_a_stop_string_is_found_where_its_beginning_repeats():
    text, shown = stream([b"a", b"a", b"a", b"b!"], ["aab"])
    assert text.text == "a"
    assert text.finished
    assert shown == ["", "", "a", ""]


def test_an_empty_stop_string_is_refused():
    with pytest.raises(RequestError, match="empty"):
        TextStream(bytes, [""])


@pytest.mark.parametrize(
    ("stop", "chunks", "found"),
    [
        (("END", "\n"), ["one ", "END"], "END"),
        (("END", "\n"), ["END of it\n."], "END"),
        (("abcd", "bc"), ["ab", "cd"], "bc"),  # it was complete first
        (("xé",), ["a", "x", "é"], "xé"),
        (("never",), ["a", "b"], None),
    ],
)
def test_the_stop_string_that_ended_a_reply_is_named(stop, chunks, found):
    whole, _ = stream([chunk.encode() for chunk in chunks], stop)
    assert whole.stopped_by == found


def expected(text, stop):
    """Cut by the definition: before the stop string complete first; of two, the earlier start."""
    ends = [(i + len(s), i) for s in stop for i in range(len(text)) if text.startswith(s, i)]
    return text[: min(ends)[1]] if ends else text


@given(
    st.text("ab\n😀é", max_size=30),
    st.lists(st.text("ab\n😀", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 120)),
)
def test_the_text_does_not_depend_on_how_tokens_cut_it(text, stop, places):
    whole, shown = stream(cut(text.encode(), places), stop)
    rest = whole.flush()
    assert "".join(shown) + rest == whole.text == expected(text, stop)
    assert whole.finished == (expected(text, stop) != text or any(s in text for s in stop))
    at_once = whole.again(range(len(shown)))
    assert (at_once.text, at_once.stopped_by) == ("".join(shown), whole.stopped_by)
    assert "\ufffd" not in whole.text


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
def test_any_bytes_decode_as_python_decodes_them_whole(data, places):
    whole, _ = stream(cut(data, places))
    whole.flush()
    assert whole.text == data.decode("utf-8", "replace")
