"""progress: what is told of how far long things are, and how often."""

from pathlib import Path

import pytest

from edge_eft.engine import progress
from edge_eft.engine.progress import Loading, Reading

FILE = Path("a.gguf")


@pytest.fixture
def clock(monkeypatch):
    """Sets the time."""

    def at(seconds):
        monkeypatch.setattr(progress.time, "monotonic", lambda: seconds)

    return at


def test_a_loading_is_told_ten_times_a_second_and_at_its_end(clock):
    told = []
    loading = Loading(lambda *how_far: told.append(how_far))
    for tenths, done in ((100, 0), (100.5, 1), (101.1, 2), (101.2, 3), (102.2, 4), (102.3, 9)):
        clock(tenths / 10)
        loading(FILE, done, 9)
    assert told == [(0, 9), (2, 9), (4, 9), (9, 9)]


def test_what_was_there_when_a_reading_began_is_told_apart(clock):
    reading, told = Reading(), []
    for seconds, done in ((5.0, 100), (5.25, 164), (5.75, 228)):
        clock(seconds)
        told.append(reading.at(done, 300))
    clock(6.0)
    told.append(reading.end())
    assert {(one["total"], one["cache"]) for one in told} == {(300, 100)}
    assert [one["processed"] for one in told] == [100, 164, 228, 300]
    assert [one["time_ms"] for one in told] == [0, 250, 750, 1000]


def test_of_a_prompt_that_is_all_in_the_cache_the_last_token_is_left():
    """Who divides by what is left got an error."""
    told = Reading().at(300, 300)
    assert (told["cache"], told["processed"], told["total"]) == (299, 299, 300)


def test_a_reading_that_never_began_has_no_end_and_one_in_mid_reply_begins_anew(clock):
    reading = Reading()
    assert reading.end() is None
    clock(1.0)
    reading.at(0, 80)
    assert reading.end()["processed"] == 80
    assert reading.end() is None
    clock(3.0)
    again = reading.at(10, 90)
    assert (again["cache"], again["time_ms"]) == (10, 0)


def test_a_model_that_has_less_of_it_takes_the_count_back():
    """What was cached is never more than what is processed."""
    reading = Reading()
    reading.at(100, 200)
    told = reading.at(0, 210)
    assert (told["total"], told["cache"], told["processed"]) == (210, 0, 0)
