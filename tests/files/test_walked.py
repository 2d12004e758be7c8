"""Headers of many files: what was gone through once is not again, and is no less checked."""

import random
import time

import pytest
from helpers.gguf_builder import ARR, I32, STR, TOKENS, File, with_key, with_tokens
from helpers.model_tree import QWEN3, Shape, Written

from edge_eft.errors import ModelFileError
from edge_eft.files import gguf_header
from edge_eft.files.gguf_check import read_header, read_layout
from edge_eft.files.gguf_header import Walked


def outcome(path, walked=None):
    try:
        return read_header(path, walked=walked)
    except ModelFileError as error:
        return str(error)


@pytest.fixture
def write(tmp_path):
    def written(data, name="x.gguf"):
        path = tmp_path / name
        path.write_bytes(data.build() if isinstance(data, File) else data)
        return path

    return written


def test_whatever_came_before_a_header_is_judged_as_if_it_came_alone(write):
    good = with_key(b"tokenizer.ggml.merges", ARR, STR, [b"a b", b"b c", b"c d"]).build()
    rng, walked = random.Random(11), Walked()
    read_header(write(good), walked=walked)
    outcomes = set()
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data[rng.randrange(len(data) - 300)] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            del data[rng.randrange(64, len(data)) :]
        path = write(bytes(data))
        alone = outcome(path)
        assert outcome(path, walked) == alone
        outcomes.add(isinstance(alone, str))
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (with_tokens([*TOKENS[:-1], TOKENS[-2]]), "more than once"),
        (with_tokens(TOKENS, [6] * len(TOKENS)), "is a byte token but reads"),
        (with_tokens([b"x%d" % i for i in range(len(TOKENS))]), "has no byte token"),
    ],
    ids=["a token twice", "other types", "no bytes"],
)
def test_another_vocabulary_of_the_same_size_is_checked_itself(write, broken, why):
    walked = Walked()
    read_header(write(File()), walked=walked)
    for _ in range(2):
        assert why in outcome(write(broken), walked)


def test_a_list_that_the_file_is_too_short_for_is_refused_though_it_is_known(write):
    walked, data = Walked(), File().build()
    read_header(write(data), walked=walked)
    assert "truncated" in outcome(write(data[: data.index(b"<0xF0>")]), walked)


def test_the_same_tokens_under_another_key_are_not_taken_for_the_vocabulary(write):
    walked = Walked()
    merged = with_key(b"tokenizer.ggml.merges", ARR, STR, TOKENS)
    layouts = [read_layout(write(merged), walked=walked) for _ in range(2)]
    assert layouts[0].tokens == layouts[1].tokens == TOKENS


def test_vocabularies_have_one_id_if_texts_types_and_tokenizer_are_the_same(write):
    def vocabulary(file):
        return read_layout(write(file), walked=Walked()).vocabulary_id()

    same = vocabulary(File())
    assert vocabulary(with_key(b"general.name", STR, b"other")) == same
    assert vocabulary(with_key(b"tokenizer.ggml.model", STR, b"gpt2")) != same
    types = [2, 3, 3] + [6] * 256 + [1, 4]
    assert vocabulary(with_key(b"tokenizer.ggml.token_type", ARR, I32, types)) != same
    assert vocabulary(with_tokens([*TOKENS[:-1], b"c"])) != same


def test_no_more_texts_are_kept_than_fit_into_memory(write, monkeypatch):
    monkeypatch.setattr(gguf_header, "MAX_WALKED", 1000)
    walked = Walked()
    for i in range(20):
        read_header(write(with_tokens([*TOKENS[:-1], b"%d" % i])), walked=walked)
    kept = [walk for walks in walked.seen.values() for walk in walks]
    assert 1 < sum(len(walk.texts) for walk in kept) <= 1000


def test_the_second_file_of_a_family_takes_a_tenth_of_the_time(tmp_path):
    shape = Shape("qwen3", 28, 1024, 3072, QWEN3, 1)
    paths = [Written(shape).write(tmp_path / f"{name}.gguf") for name in ("first", "second")]

    def seconds(path, walked):
        start = time.process_time()
        read_header(path, walked=walked)
        return time.process_time() - start

    times = []
    for _ in range(5):  # the quickest of several: another process can double a single one
        walked = Walked()
        times.append([seconds(path, walked) for path in paths])
    first, second = map(min, zip(*times, strict=True))
    assert second < first / 3  # measured: a tenth, or less
