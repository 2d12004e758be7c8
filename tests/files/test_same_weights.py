"""Copies are told from other models by their tensors, whatever their metadata say."""

import pytest
from helpers.families import twin
from helpers.gguf_parts import split_model
from helpers.tiny_models import script, write_random, write_script

import edge_eft.files.same_weights as module
from edge_eft.errors import ModelFileError
from edge_eft.files.gguf_check import read_header
from edge_eft.files.same_weights import same_weights


def same(*paths):
    return same_weights(*map(read_header, paths))


def test_a_copy_with_other_metadata_is_the_same_model(tmp_path):
    models = [
        write_random(tmp_path / f"{i}.gguf", seed=5, chat_template=template)
        for i, template in enumerate((None, "{{ messages[0].content }}" * 9))
    ]
    assert models[0].stat().st_size != models[1].stat().st_size
    assert same(*models)


@pytest.mark.parametrize(
    "options",
    [{"seed": 6}, {"n_layer": 3}, {"d": 128}, {"quantised": False}],
    ids=["values", "layers", "width", "type"],
)
def test_models_that_differ_are_not(tmp_path, options):
    one = write_random(tmp_path / "one.gguf", seed=5)
    assert not same(one, write_random(tmp_path / "other.gguf", **{"seed": 5} | options))


def test_a_single_bit_anywhere_makes_another_model(tmp_path):
    one = write_random(tmp_path / "one.gguf", seed=5)
    assert not same(one, twin(one))
    header, data = read_header(one), bytearray(one.read_bytes())
    end = max(tensor.offset + tensor.n_bytes for tensor in header.tensors)
    data[(len(data) - end) // 32 * 32 + end - 1] ^= 1  # the last byte of all tensors
    other = tmp_path / "other.gguf"
    other.write_bytes(data)
    assert not same(one, other)


def test_a_model_in_parts_is_compared_with_whole_ones_and_split_ones(tmp_path):
    """It used to pass for another model, and a delta of nothing was emulated."""
    whole = write_random(tmp_path / "whole.gguf", seed=5)
    three, four = (split_model(whole, tmp_path, n, name=f"in{n}") for n in (3, 4))
    other = split_model(write_random(tmp_path / "other.gguf", seed=6), tmp_path, 3, name="other")
    assert same(whole, three)
    assert same(three, four)
    assert not same(whole, other)
    assert not same(four, other)


def test_bytes_behind_the_last_tensor_do_not_matter(tmp_path):
    whole, longer = write_random(tmp_path / "whole.gguf", seed=5), tmp_path / "longer.gguf"
    longer.write_bytes(whole.read_bytes() + bytes(100))
    assert same(whole, longer)


def test_a_file_that_is_gone_is_a_line(tmp_path):
    headers = [read_header(write_random(tmp_path / f"{i}.gguf", seed=5)) for i in range(2)]
    (tmp_path / "1.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"1\.gguf: cannot be read"):
        same_weights(*headers)


def test_models_of_a_family_are_told_apart_by_their_tensors_beginnings(tmp_path, monkeypatch):
    """The embeddings are the same, as after many a tuning: nothing is read as a whole."""
    paths = [write_script(tmp_path / f"{i}.gguf", script(otherwise=5 + i)) for i in range(2)]
    compared, real = [], module._equal
    monkeypatch.setattr(module, "_equal", lambda *a: compared.append(a[-1]) or real(*a))
    assert not same(*paths)
    assert max(compared) <= 4096
