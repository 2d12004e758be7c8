"""sessions: what can be read of files that anybody may have written."""

import contextlib
import json
import os

import pytest
from helpers.kept_sessions import BEGIN, turn, write
from hypothesis import given
from hypothesis import strategies as st

from edge_eft.cli import sessions
from edge_eft.errors import SessionError


def test_an_id_may_be_cut_short_or_be_its_letters(kept):
    for name in ("20261128-kqzm", "20261128-kbbb", "20261127-zzzz"):
        write(kept, name=name)
    assert sessions.find("20261127").stem == "20261127-zzzz"
    assert sessions.find("kq").stem == "20261128-kqzm"
    assert sessions.find("20261128-kqzm").stem == "20261128-kqzm"
    with pytest.raises(SessionError, match=r"'k' could be 20261128-k\w+, 20261128-k\w+; type more"):
        sessions.find("k")
    for word in ("nope", "", "../20261128-kqzm"):
        with pytest.raises(SessionError, match="no conversation is kept as"):
            sessions.find(word)


def test_the_newest_is_the_one_that_was_used_last_and_has_a_message(kept):
    write(kept, turn("user", "a"), name="20261101-bbbb", when=3000)
    write(kept, turn("user", "b"), name="20261102-cccc", when=2000)
    write(kept, name="20261103-dddd", when=4000)
    (kept / "20261104-ffff.jsonl").write_text("no JSON")
    (kept / "notes.txt").write_text("not ours")
    assert sessions.newest().stem == "20261101-bbbb"
    assert sessions.newest(lambda session: "b" in session.turns[0]["content"]).stem.endswith("cccc")
    assert sessions.newest(lambda _: False) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not a conversation"),
        (b"{}", "not a conversation"),
        (b"\xff\xfe", "not a conversation"),
        (b"[" * 100_000, "not a conversation"),
        (json.dumps(BEGIN | {"id": "../../x"}).encode(), "not a conversation"),
        (json.dumps(BEGIN | {"settings": []}).encode(), "not a conversation"),
        (json.dumps(BEGIN | {"version": 2}).encode(), "by a later edge-eft; update"),
        (json.dumps(BEGIN | {"id": "20261128-zzzz"}).encode(), "under another name"),
    ],
    ids=range(8),
)
def test_what_is_no_conversation_is_refused_in_one_line(kept, line, why):
    path = kept / "20261128-kqzm.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(SessionError, match=why) as caught:
        sessions.read(path)
    assert "\n" not in str(caught.value)


DAMAGED = (
    b"no JSON",
    b"\xff",
    b"[1]",
    b'{"event": "turn", "role": "user"}',
    b'{"event": "turn", "role": "nobody", "content": "x"}',
    b'{"event": "piece", "text": "of nothing"}',
    b'{"event": "keep", "n": -1}',
    b'{"event": "keep", "n": true}',
    b'{"event": "end"}',
    b'{"event": "__init__"}',
    b'{"event": ["turn"]}',
    b'{"event": "settings", "settings": {"alpha": 1e999}}',
    b'{"event": "system", "system": "\\ud800"}',
    b'{"event": "system", "system": ' + b"[" * 5000,
)


@pytest.mark.parametrize("line", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_line_is_left_out_and_counted(kept, line):
    path = write(kept, turn("user", "a"), turn("assistant", "b"))
    with open(path, "ab") as file:
        file.write(line + b"\n" + json.dumps(turn("user", "c")).encode() + b"\n")
    session = sessions.read(path)
    assert session.n_damaged == 1
    assert [t["content"] for t in session.turns] == ["a", "b", "c"]
    assert (session.settings, session.system) == ({}, None)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_byte_that_was_changed_ends_in_a_conversation_or_one_line(tmp_path_factory, at, value):
    place = tmp_path_factory.getbasetemp()
    pieces = [{"event": "reply", "after": 1}, {"event": "piece", "text": "b"}, {"event": "end"}]
    path = write(place, turn("user", "a"), *pieces, turn("user", "c"))
    data = bytearray(path.read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data)
    with contextlib.suppress(SessionError):
        assert len(sessions.read(path).turns) <= 3


def test_a_pipe_or_a_directory_of_that_name_does_not_hang(kept):
    os.mkfifo(kept / "20261128-kqzm.jsonl")
    (kept / "20261128-zzzz.jsonl").mkdir()
    for path in sessions.paths():
        with pytest.raises(SessionError, match="cannot be read"):
            sessions.read(path)
    assert sessions.newest() is None
