"""Which file of a repository is meant, by the names that quantisers give."""

import time

import pytest

from edge_eft.errors import HubError
from edge_eft.files.hub_files import (
    BASE_KINDS,
    PAIR_KINDS,
    RemoteFile,
    Repository,
    choose,
    smaller,
)


def repository(*names, size=1 << 20):
    files = {name: RemoteFile(name, size * (i + 1), "0" * 64) for i, name in enumerate(names)}
    return Repository("a/b", "c" * 40, files)


def chosen(repo, *arguments, **options):
    return [part.path for part in choose(repo, *arguments, **options)]


MANY = repository("M.Q2_K.gguf", "M.Q4_0.gguf", "M.Q4_K_M.gguf", "M.Q8_0.gguf", "mmproj-M-f16.gguf")


@pytest.mark.parametrize(
    ("wanted", "usual", "found"),
    [
        ("M.Q2_K.gguf", (), "M.Q2_K.gguf"),
        ("m.q2_k.GGUF", (), "M.Q2_K.gguf"),
        ("q8_0", (), "M.Q8_0.gguf"),
        ("", PAIR_KINDS, "M.Q8_0.gguf"),
        ("", BASE_KINDS, "M.Q4_K_M.gguf"),
    ],
)
def test_a_file_is_chosen_by_its_name_its_kind_or_custom(wanted, usual, found):
    assert chosen(MANY, wanted, usual) == [found]


def test_the_one_model_of_a_repository_needs_no_name():
    assert chosen(repository("only-IQ1_S.gguf"), "") == ["only-IQ1_S.gguf"]


def test_a_split_model_is_all_its_parts_and_named_by_the_first():
    parts = [f"d/M-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert chosen(repository(*parts), "Q8_0") == parts
    assert chosen(repository(*parts), "M-Q8_0-00001-of-00003.gguf") == parts
    for missing in (0, 1, 2):
        there = [part for part in parts if part != parts[missing]]
        with pytest.raises(HubError, match=f"in parts, and lacks {parts[missing]}; name another"):
            choose(repository(*there), "Q8_0")


def test_parts_that_nobody_has_cost_nothing():
    many = repository(*(f"{n}-00001-of-99999.gguf" for n in range(1000)))
    began = time.monotonic()
    assert many.models() == {}
    with pytest.raises(HubError, match="lacks 0-00002-of-99999"):
        choose(many, "")
    assert time.monotonic() < began + 5


def test_a_name_that_is_not_there_lists_the_nearest_first():
    with pytest.raises(
        HubError, match=r"a/b has no 'M\.Q8_1\.gguf'.*: M\.Q8_0\.gguf \(4\.2 MB\), "
    ):
        choose(MANY, "M.Q8_1.gguf")
    with pytest.raises(HubError, match=r"has no 'IQ4_XS'; name one of its files: M\."):
        choose(MANY, "IQ4_XS")


def test_a_guessed_name_stands_for_its_quantisation():
    assert chosen(MANY, "M-base-Q4_0.gguf", guessed=True) == ["M.Q4_0.gguf"]
    with pytest.raises(HubError, match="has no"):
        choose(MANY, "M-base-Q4_0.gguf")


def test_two_files_of_a_quantisation_are_not_chosen_between():
    repo = repository("a-Q8_0.gguf", "b-Q8_0.gguf", "c-UD-Q4_K_M.gguf", "d-Q4_K_M.gguf")
    with pytest.raises(HubError, match="has 2 files for 'Q8_0'; name one"):
        choose(repo, "Q8_0")
    assert chosen(repo, "Q4_K_M") == ["d-Q4_K_M.gguf"]
    assert chosen(repo, "UD-Q4_K_M") == ["c-UD-Q4_K_M.gguf"]


def test_nothing_usual_is_asked_about():
    with pytest.raises(HubError, match="several models, and none is the usual one; name one"):
        choose(repository("a.gguf", "b.gguf"), "", PAIR_KINDS)


def test_many_files_are_listed_shortly():
    repo = repository(*(f"m{n}.gguf" for n in range(100)))
    with pytest.raises(HubError, match="and 88 more"):
        choose(repo, "")


def test_a_smaller_quantisation_is_the_largest_that_fits():
    parts = choose(MANY, "Q8_0")
    assert smaller(MANY, parts, 3 << 20) == "Q4_K_M"
    assert smaller(MANY, parts, 1 << 20) == "Q2_K"
    assert smaller(MANY, parts, 1) == ""
