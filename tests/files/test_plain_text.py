"""plain_text: byte-order marks, line ends, sizes, and files that are none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from edge_eft.files.plain_text import decode, lines, read_regular, utf8

TEXT = "Grüße,\n日本 👩\u200d🚀\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_says_how_text_is_stored_and_is_no_part_of_it(encoding: str) -> None:
    windows = TEXT.replace("\n", "\r\n").encode(encoding)
    assert decode(windows) == TEXT
    assert list(lines(io.BytesIO(windows))) == TEXT.splitlines()
    assert utf8(TEXT.encode(encoding)) == TEXT.encode()


def test_both_byte_orders_are_read() -> None:
    for order in ("le", "be"):
        for size in ("16", "32"):
            assert decode(f"\ufeff{TEXT}".encode(f"utf-{size}-{order}")) == TEXT


@pytest.mark.parametrize(
    "data", [b"caf\xe9", b"\xff\xfea", "hello".encode("utf-16-le"), b"\xef\xbb\xbf\xff"]
)
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        decode(data)
    with pytest.raises(UnicodeDecodeError):
        list(lines(io.BytesIO(data)))


def test_lines_come_as_they_are_written() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        os.write(writer, b"\xef\xbb\xbfone\r\ntw")
        entries = lines(file)
        assert next(entries) == "one"
        os.write(writer, b"o\n\nfour\rstill four")
        os.close(writer)
        assert list(entries) == ["two", "", "four\rstill four"]


def test_only_ordinary_files_of_a_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        read_regular(path, 4)
    os.mkfifo(tmp_path / "fifo")
    for other in (tmp_path, tmp_path / "fifo", "/dev/zero", tmp_path / "none"):
        with pytest.raises(OSError, match=r"ordinary|Is a directory|No such file"):
            read_regular(other, 5)
