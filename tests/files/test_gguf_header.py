"""gguf_layout: the bounds that a header's bytes must keep, each with a file that breaks it."""

from __future__ import annotations

import ctypes
import os
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES
from helpers.gguf_builder import (
    ARR,
    BYTES,
    STR,
    TOKENS,
    U8,
    U32,
    File,
    encode,
    engine_library,
    refusal,
    text,
    with_key,
    with_tensors,
    with_tokens,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_eft.errors import ModelFileError
from edge_eft.files import gguf_header as gguf_layout
from edge_eft.files.gguf_check import read_header
from edge_eft.files.gguf_header import GGML_TYPES


def test_paths_that_lead_to_no_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, part in (
        (tmp_path / "none.gguf", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "pipe", "not a regular file"),
        ("nul\0.gguf", "is not a path"),
        (tmp_path / ("n" * 300), "cannot be read"),
    ):
        with pytest.raises(ModelFileError, match=part):
            read_header(path)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "is empty"),
        (b"Once upon a time\n", "is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x80\x04\x95 pickle", "is not a GGUF file"),
        (b"GG", "truncated"),
        (b"GGUF\3\0\0", "truncated"),
        (File(version=3 << 24).build(), "is big-endian"),
        (File(version=1).build(), "is GGUF version 1"),
        (File(version=4).build(), "is GGUF version 4"),
    ],
)
def test_files_that_are_not_gguf_are_refused(tmp_path: Path, data: bytes, part: str) -> None:
    assert part in refusal(tmp_path, data)


KEY = text(b"k")
LAYOUT_FAULTS = {
    "keys beyond the file": (File(n_keys=1 << 62), "claims 4,611,686,018,427,387,904 keys"),
    "tensors beyond the file": (
        File(n_tensors=1 << 63),
        "claims 9,223,372,036,854,775,808 tensors",
    ),
    "key of a huge length": (
        File(n_keys=11, extra_keys=struct.pack("<Q", 1 << 63)),
        "key 10 claims a text of 9,223,372,036,854,775,808 bytes",
    ),
    "text longer than the file": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<IQ", STR, 1 << 20)),
        "truncated: key 'k' runs to byte",
    ),
    "text of a huge length": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<IQ", STR, 1 << 40)),
        "key 'k' claims a text of",
    ),
    "array with a text of a huge length": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<IIQQ", ARR, STR, 1, 1 << 60)),
        "key 'k' claims a text of",
    ),
    "array longer than the file": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<IIQ", ARR, U8, 1 << 20)),
        "truncated: key 'k' runs to byte",
    ),
    "array of a huge length": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<IIQ", ARR, U8, 1 << 60)),
        "key 'k' claims 1,152,921,504,606,846,976 elements",
    ),
    "array of arrays": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<IIQ", ARR, ARR, 1)),
        "array of arrays",
    ),
    "array of an unknown type": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<IIQ", ARR, 99, 1)),
        "array of the unknown type 99",
    ),
    "value of an unknown type": (
        File(n_keys=11, extra_keys=KEY + struct.pack("<II", 99, 1)),
        "unknown value type 99",
    ),
    "key without a name": (with_key(b"", U32, 1), "impossible name"),
    "key behind a NUL": (with_key(b"llama.block_count\0", U32, 600), "impossible name"),
    "key twice": (
        File(n_keys=11, extra_keys=text(b"llama.block_count") + encode((U32, 600))),
        "key 'llama.block_count' is there twice",
    ),
    "alignment no power of two": (with_key(b"general.alignment", U32, 48), "not a power of two"),
    "alignment zero": (with_key(b"general.alignment", U32, 0), "not a power of two"),
    "alignment 16": (with_key(b"general.alignment", U32, 16), "not a multiple of 32"),
    "alignment of a wrong type": (with_key(b"general.alignment", STR, b"32"), "wrong type (str"),
    "tensor twice": (
        with_tensors((b"a", (32,), 0, 0, 128), (b"a", (32,), 0, 128, 128)),
        "tensor 'a' is there twice",
    ),
    "tensor name too long": (with_tensors((b"a" * 64, (32,), 0, 0, 128)), "a text of 64 bytes"),
    "five dimensions": (with_tensors((b"a", (32, 1, 1, 1, 1), 0, 0, 128)), "has 5 dimensions"),
    "dimensions overflow": (
        with_tensors((b"a", (1 << 40, 1 << 40), 0, 0, 128)),
        "impossible shape",
    ),
    "exabyte dimension": (with_tensors((b"a", (1 << 60,), 0, 0, 128)), "ends at byte"),
    "zero dimension": (with_tensors((b"a", (32, 0), 0, 0, 128)), "impossible shape"),
    "unknown ggml type": (with_tensors((b"a", (32,), 99, 0, 128)), "unknown ggml type 99"),
    "removed ggml type": (with_tensors((b"a", (32,), 4, 0, 128)), "unknown ggml type 4"),
    "row no multiple of the block": (with_tensors((b"a", (33,), 8, 0, 128)), "not multiples of 32"),
    "misaligned": (with_tensors((b"a", (32,), 0, 4, 128)), "is misaligned"),
    "overlap": (
        with_tensors((b"a", (32,), 0, 0, 128), (b"b", (32,), 0, 96, 128)),
        "overlaps the one before",
    ),
    "gap": (with_tensors((b"a", (32,), 0, 32, 128)), "leaves a gap"),
    "beyond the file": (with_tensors((b"a", (64,), 0, 0, 128)), "'a' ends at byte"),
    "no tensors": (with_tensors(), "holds no tensors"),
}


@pytest.mark.parametrize("fault", LAYOUT_FAULTS)
def test_broken_layouts_are_refused_with_what_was_seen(tmp_path: Path, fault: str) -> None:
    file, part = LAYOUT_FAULTS[fault]
    assert part in refusal(tmp_path, file.build())


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    data = File().build()
    # All but the padding behind the last tensor, which llama.cpp does not need either.
    for end in [*range(64), *range(64, len(data) - 128, 97), len(data) - 1]:
        message = refusal(tmp_path, data[:end])
        assert "truncated" in message or "claims" in message or end == 0


def test_a_header_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = File().build()
    monkeypatch.setattr(gguf_layout, "MAX_HEADER_BYTES", len(data))
    (tmp_path / "x.gguf").write_bytes(data)
    read_header(tmp_path / "x.gguf")
    monkeypatch.setattr(gguf_layout, "MAX_HEADER_BYTES", 4000)
    assert "the header is larger than 4,000 bytes at key" in refusal(tmp_path, data)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(File().build()[:200])
    with open(tmp_path / "x.gguf", "rb") as file:
        layout = gguf_layout.Layout("x.gguf", file)
        layout.size = 4000
        with pytest.raises(ModelFileError, match="it became shorter while key"):
            layout.read()


def test_a_tiny_file_with_huge_counts_costs_nothing(tmp_path: Path) -> None:
    """The reader of the gguf package hangs and grows on such a file of 43 bytes."""
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"a") + struct.pack("<IIQ", 9, 8, 1 << 24)
    tracemalloc.start()
    start = time.perf_counter()
    refusal(tmp_path, data)
    assert time.perf_counter() - start < 0.5
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_large_vocabulary_is_scanned_fast(tmp_path: Path) -> None:
    tokens = [*BYTES, *(b"token %d" % index for index in range(262_144 - 256))]
    path = tmp_path / "x.gguf"
    path.write_bytes(with_tokens(tokens).build())
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert read_header(path).n_vocab == 262_144
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.6  # 0.12 s on an idle 2024 server core; machines differ


@settings(max_examples=400, deadline=2000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever the bytes, the answer is a header or a ModelFileError, and soon."""
    base = bytearray(with_tokens(TOKENS).build())
    # Mutations aim at the structure: the start, the last keys, and the tensor table.
    interesting = [*range(420), *range(len(base) - 700, len(base))]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(interesting))
        patch = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=8),
                st.sampled_from([b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 1 << 63)]),
            )
        )
        base[place : place + len(patch)] = patch
    if data.draw(st.booleans()):
        del base[data.draw(st.integers(0, len(base))) :]
    path = tmp_path / "x.gguf"
    path.write_bytes(base)
    message = ""
    try:
        header = read_header(path)
    except ModelFileError as error:
        message = str(error)
    else:
        assert header.n_parameters > 0
        assert header.n_layer >= 0
    assert message.isprintable()


def test_type_sizes_are_those_of_ggml() -> None:
    ggml = ctypes.CDLL(str(engine_library("ggml-base")))
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_type_name.restype = ctypes.c_char_p
    for kind, (name, block, n_bytes) in GGML_TYPES.items():
        assert ggml.ggml_type_name(kind).decode().upper() == name
        assert (ggml.ggml_blck_size(kind), ggml.ggml_type_size(kind)) == (block, n_bytes)
    # gguf 0.17 to 0.19 have 40 bytes for Q8_1, which no file uses; ggml has 36.
    gguf_types = {kind.value: sizes for kind, sizes in GGML_QUANT_SIZES.items() if kind.value != 9}
    assert all(GGML_TYPES[kind][1:] == sizes for kind, sizes in gguf_types.items())
