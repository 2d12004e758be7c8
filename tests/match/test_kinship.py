"""Relatives and strangers, by their norms."""

from dataclasses import replace

import pytest
from helpers import tiny_models
from helpers.model_tree import Shape, Tokens, Written

from edge_eft.files.gguf_check import read_header
from edge_eft.match.kinship import RELATED, STRANGERS, kinship

SHAPE = Shape("llama", 4, 256, 512, Tokens(9, 400, 390), 1)


@pytest.fixture
def related(tmp_path):
    def measured(one, other):
        paths = [each.write(tmp_path / f"{i}.gguf") for i, each in enumerate((one, other))]
        return kinship(*map(read_header, paths))

    return measured


def test_a_tune_is_related_to_its_reference_in_any_quantisation(related):
    for kind in ("Q8_0", "Q4_0"):
        assert related(Written(SHAPE, tuned=0.05), Written(SHAPE, kind)) > RELATED


def test_two_trainings_are_strangers(related):
    assert related(Written(SHAPE), Written(replace(SHAPE, weights=2))) < STRANGERS


def test_of_a_norm_without_end_the_beginning_is_read(tmp_path):
    """Headers may state gigabytes that are a hole in a file; all of it was read."""
    files = []
    for i in range(2):
        path = Written(SHAPE, tuned=0.05 * i).write(tmp_path / f"{i}.gguf")
        data = path.read_bytes().replace(b"output_norm.weight", b"output_morn.weight")
        path.write_bytes(data)
        header = read_header(path)
        norm = next(t for t in header.tensors if t.name == "blk.0.attn_norm.weight")
        huge = replace(norm, name="output_norm.weight", shape=(1 << 34,), n_bytes=1 << 36)
        files.append(replace(header, tensors=(*header.tensors, huge)))
    assert kinship(*files) is not None


def test_models_of_other_shapes_have_nothing_to_compare(related):
    assert related(Written(SHAPE), Written(replace(SHAPE, d=512))) is None


def test_norms_that_were_never_trained_say_nothing(tmp_path):
    paths = [tiny_models.write_random(tmp_path / f"{i}.gguf", seed=i) for i in range(2)]
    assert kinship(*map(read_header, paths)) is None


def test_norms_that_are_no_numbers_say_nothing(related, tmp_path):
    Written(SHAPE).write(tmp_path / "x.gguf")
    header = read_header(tmp_path / "x.gguf")
    norm = next(tensor for tensor in header.tensors if tensor.name == "output_norm.weight")
    data = bytearray((tmp_path / "x.gguf").read_bytes())
    start = header.data_starts[0] + norm.offset
    data[start : start + 8] = b"\xff\xff\xff\x7f" + b"\x00\x00\x80\x7f"
    (tmp_path / "x.gguf").write_bytes(data)
    header = read_header(tmp_path / "x.gguf")
    assert kinship(header, header) is None


def test_the_demo_models_are_what_they_say(atlas):
    tuned, reference = read_header(atlas.tuned), read_header(atlas.reference)
    assert kinship(tuned, reference) > RELATED
