"""Split models: one header of all parts, whose names are found by llama.cpp's own rule."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest
from helpers.gguf_builder import I32, U16, U32, File, adapter, engine_library, layout

from edge_eft.errors import ModelFileError
from edge_eft.files.gguf_check import read_header
from edge_eft.files.gguf_split import first_part, part_paths

TENSORS = (
    *((b"token_embd.weight", (32, 4), 8), (b"output_norm.weight", (32,), 0)),
    *((b"blk.0.attn_q.weight", (32, 32), 0), (b"blk.1.attn_q.weight", (32, 32), 1)),
)


def part(number: int, count: int, *tensors: tuple[bytes, tuple[int, ...], int]) -> File:
    """One part as llama-gguf-split writes it: the keys of the model are in the first alone."""
    file = File(tensors=layout(*tensors))
    if number:
        file.keys = {}
    split = {
        b"split.no": (U16, number),
        b"split.count": (U16, count),
        b"split.tensors.count": (I32, len(TENSORS)),
    }
    file.keys |= split
    return file


def write(folder: Path, *files: File) -> Path:
    """Write the parts under their names; returns the first's path."""
    for number, file in enumerate(files, 1):
        name = f"m-{number:05d}-of-{len(files):05d}.gguf"
        (folder / name).write_bytes(file.build())
    return folder / f"m-00001-of-{len(files):05d}.gguf"


def three(folder: Path) -> Path:
    return write(folder, part(0, 3), part(1, 3, *TENSORS[:2]), part(2, 3, *TENSORS[2:]))


def refused(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parts_have_the_names_that_llama_cpp_gives_them(tmp_path):
    library = ctypes.CDLL(str(engine_library("llama")))
    paths = part_paths(tmp_path / "a model-00001-of-00012.gguf")
    assert len(paths) == 12
    buffer = ctypes.create_string_buffer(4096)
    for number, path in enumerate(paths):
        prefix = os.fsencode(tmp_path / "a model")
        assert library.llama_split_path(buffer, 4096, prefix, number, 12) > 0
        assert os.fsdecode(buffer.value) == str(path)
    for name in ("x.gguf", "x-00002-of-00003.gguf", "x-1-of-3.gguf", "x-00001-of-00003.bin"):
        assert part_paths(tmp_path / name) == (tmp_path / name,)
    assert first_part(tmp_path / "x-00002-of-00003.gguf") == "x-00001-of-00003.gguf"
    assert first_part(tmp_path / "x.gguf") == ""


def test_the_parts_make_one_header(tmp_path):
    path = three(tmp_path)
    header = read_header(path)
    assert header.path == path
    assert header.parts == part_paths(path)
    assert [tensor.name.encode() for tensor in header.tensors] == [name for name, *_ in TENSORS]
    assert header.n_parameters == 32 * 4 + 32 + 2 * 32 * 32
    assert header.n_bytes == 136 + 128 + 4096 + 2048
    assert header.file_size == sum(each.stat().st_size for each in header.parts)
    assert header.n_layer == 2


def test_a_link_into_a_hub_cache_has_its_siblings_beside_itself(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(part_paths(three(tmp_path))):
        path.rename(blobs / f"sha{number}")
        (snapshot / path.name).symlink_to(f"../../blobs/sha{number}")
    assert read_header(snapshot / "m-00001-of-00003.gguf").n_layer == 2
    message = refused(blobs / "sha0")
    assert "is the first of 3 parts" in message
    assert "name the parts NAME-00001-of-00003.gguf" in message


def test_a_later_part_names_the_first(tmp_path):
    three(tmp_path)
    message = refused(tmp_path / "m-00002-of-00003.gguf")
    assert message.endswith("is part 2 of 3 of a model; give the first part, m-00001-of-00003.gguf")


def test_missing_parts_are_named(tmp_path):
    path = three(tmp_path)
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    message = refused(path)
    assert "1 are missing: m-00003-of-00003.gguf; download" in message
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    assert "2 are missing: m-00002-of-00003.gguf, m-00003" in refused(path)


def test_a_part_that_is_damaged_or_of_another_model_is_refused_by_its_name(tmp_path):
    path = three(tmp_path)
    second = tmp_path / "m-00002-of-00003.gguf"
    whole = second.read_bytes()
    second.write_bytes(whole[:-40])
    assert f"{second}: truncated" in refused(path)
    second.write_bytes((tmp_path / "m-00003-of-00003.gguf").read_bytes())
    assert f"{second}: does not say that it is part 2 of 3" in refused(path)
    second.write_bytes(part(1, 3, *TENSORS[2:]).build())
    assert "'blk.0.attn_q.weight' is in an earlier part as well" in refused(path)
    second.write_bytes(part(1, 3, TENSORS[0]).build())
    assert "states 4 tensors, and its 3 parts have 3" in refused(path)
    second.write_bytes(part(1, 3, TENSORS[0], (b"output_norm.weight", (32,), 1)).build())
    assert f"{second}: tensor 'output_norm.weight' has type F16" in refused(path)


def test_a_later_part_need_not_count_the_parts(tmp_path):
    later = part(1, 2, *TENSORS)
    del later.keys[b"split.count"], later.keys[b"split.tensors.count"]
    assert read_header(write(tmp_path, part(0, 2), later)).n_layer == 2
    later.keys[b"split.no"] = (U32, 1)
    assert "does not say that it is part 2 of 2" in refused(write(tmp_path, part(0, 2), later))
    del later.keys[b"split.no"]
    assert "does not say that it is part 2 of 2" in refused(write(tmp_path, part(0, 2), later))


def test_numbers_of_a_wrong_kind_are_refused(tmp_path):
    for key, value, reason in (
        (b"split.no", (U32, 0), "split.no is of the wrong type (uint32)"),
        (b"split.count", (U32, 3), "split.count is of the wrong type (uint32)"),
        (b"split.no", (U16, 3), "split.no is 3, outside 0 to 2"),
        (b"split.tensors.count", (U16, 9), "states 9 tensors"),
    ):
        first = part(0, 3)
        first.keys[key] = value
        path = write(tmp_path, first, part(1, 3, *TENSORS[:2]), part(2, 3, *TENSORS[2:]))
        assert reason in refused(path)


def test_an_adapter_in_parts_is_refused(tmp_path):
    """llama.cpp would read the first part, and apply that much of it."""
    first, second = adapter(), part(1, 2)
    first.keys |= part(0, 2).keys | first.keys
    first.keys[b"split.tensors.count"] = (I32, 2)
    assert "is an adapter in 2 parts; join it" in refused(write(tmp_path, first, second))
