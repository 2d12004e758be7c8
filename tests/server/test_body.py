"""body: what is not a JSON object that can be walked and written again is a 400 in one line."""

import json

import pytest

from edge_eft.server.api_error import ApiError
from edge_eft.server.body import json_object


def nested(levels):
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"a=1&b=2", "not valid JSON"),
        (b'{"a": NaN}', "NaN is not a finite number"),
        (b'{"a": -Infinity}', "-Infinity is not a finite number"),
        (b'{"a": 1e999}', "1e999 is not a finite number"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[]", "a JSON list"),
        (b"null", "a JSON NoneType"),
        (b'"text"', "a JSON str"),
        (nested(101), "nested deeper than 100 levels"),
        (nested(100_000), "nested deeper than 100 levels"),
        (b'{"a":' * 100_000, "nested deeper than 100 levels"),
        (nested(100_001), "more than 100,000 lists and objects"),
        (b'{"a": [' + b"{}," * 1_000_000 + b"{}]}", "more than 100,000 lists and objects"),
        (b'{"a": "\\ud800"}', "half a surrogate pair"),
        (b'{"\\uDC00": 1}', "half a surrogate pair"),
    ],
)
def test_what_is_no_object_is_refused_in_one_line(body, seen):
    with pytest.raises(ApiError) as refused:
        json_object(body)
    assert refused.value.status == 400
    assert seen in refused.value.message
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 300


@pytest.mark.parametrize("content", [{}, {"a": [1, 2.5, "ä\U0001f600", None, True]}])
def test_objects_are_read(content):
    assert json_object(json.dumps(content).encode()) == content


def test_of_two_values_of_a_key_the_last_counts_and_pairs_of_surrogates_are_whole():
    assert json_object(b'{"a": 1, "a": 2}') == {"a": 2}
    assert json_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
    assert json_object(nested(100))
    brackets = '\\"[{' * 200_000  # of a text count for nothing
    assert json_object(json.dumps({"a": brackets}).encode()) == {"a": brackets}
    assert len(json_object(b'{"a": [' + b"[1]," * 1000 + b"[1]]}")["a"]) == 1001
