"""adapter_cache: a PEFT adapter is converted once; a damaged file is made anew, old ones go."""

import errno
import os
import time
from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.hugging_face import peft_directory, random_pairs

from edge_eft.errors import ModelFileError
from edge_eft.files import adapter_cache
from edge_eft.files.adapter_cache import KEPT, converted
from edge_eft.files.gguf_check import read_header
from edge_eft.files.peft import read_peft

MODULES = {"layers.0.self_attn.q_proj": (64, 64)}


@pytest.fixture
def model(tmp_path):
    return read_header(tiny_models.write_random(tmp_path / "small.gguf", 1))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EDGE_EFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "adapters"


def adapter(folder: Path, seed: int = 0):
    return read_peft(peft_directory(folder / f"peft-{seed}", random_pairs(MODULES, seed=seed)))


def test_an_adapter_is_converted_once(tmp_path, model, cache, monkeypatch):
    peft = adapter(tmp_path)
    first = converted(peft, model)
    assert read_header(first).is_adapter
    monkeypatch.setattr(adapter_cache, "to_gguf", lambda *arguments: pytest.fail("made again"))
    assert converted(peft, model) == first
    assert os.listdir(cache) == [first.name]


def test_another_content_is_another_file(tmp_path, model, cache):
    peft = adapter(tmp_path)
    first = converted(peft, model)
    config = peft.path / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 9'))
    second = converted(read_peft(peft.path), model)
    assert read_header(first).metadata["adapter.lora.alpha"] == 8.0
    assert read_header(second).metadata["adapter.lora.alpha"] == 9.0


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_made_anew(tmp_path, model, cache, damage):
    peft = adapter(tmp_path)
    path = converted(peft, model)
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    path.write_bytes({"flipped": flipped, "cut": whole[:-32], "empty": b""}[damage])
    assert converted(peft, model) == path
    assert path.read_bytes() == whole


@pytest.mark.skipif(os.name == "nt", reason="links and FIFOs are POSIX's")
@pytest.mark.parametrize("planted", ["endless", "fifo", "folder", "dangling", "elsewhere"])
def test_what_is_no_file_of_the_cache_is_not_read(tmp_path, model, cache, planted):
    """A FIFO, or a link to /dev/zero, was read for ever; a folder ended it."""
    peft = adapter(tmp_path)
    path = converted(peft, model)
    key, whole = path.name.partition("-")[0], path.read_bytes()
    other = path.rename(tmp_path / path.name)
    place = path if planted == "elsewhere" else cache / f"{key}-x.gguf"
    to = {"endless": "/dev/zero", "dangling": "/nowhere", "elsewhere": other}
    if planted == "folder":
        place.mkdir()
    elif planted == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to(to[planted])
    assert converted(peft, model) == path
    assert path.read_bytes() == whole
    assert not path.is_symlink()


def test_a_file_that_cannot_be_marked_as_used_is_used(tmp_path, model, cache, monkeypatch):
    """As on a disk that is read-only."""
    peft = adapter(tmp_path)
    path = converted(peft, model)

    def refuse(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(adapter_cache, "to_gguf", lambda *arguments: pytest.fail("made again"))
    assert converted(peft, model) == path


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_directory(tmp_path, model, cache, monkeypatch):
    def fill(*arguments):
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")

    monkeypatch.setattr(adapter_cache, "to_gguf", fill)
    with pytest.raises(ModelFileError, match=rf"\({cache.parent}: No space left on device\)"):
        converted(adapter(tmp_path), model)
    assert os.listdir(cache) == []


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
def test_only_its_owner_reads_a_file(tmp_path, model, cache):
    assert converted(adapter(tmp_path), model).stat().st_mode & 0o777 == 0o600


def test_a_conversion_that_fails_leaves_nothing(tmp_path, model, cache):
    modules = {name: (a, b * 0) for name, (a, b) in random_pairs(MODULES).items()}
    with pytest.raises(ModelFileError, match="never trained"):
        converted(read_peft(peft_directory(tmp_path / "zeros", modules)), model)
    assert os.listdir(cache) == []


def test_the_least_recently_used_go_when_others_come(tmp_path, model, cache):
    cache.mkdir(parents=True)
    long_ago = time.time() - 7 * 24 * 3600
    for number in range(KEPT):
        (cache / f"old-{number}.gguf").write_bytes(b"")
        os.utime(cache / f"old-{number}.gguf", (long_ago + number, long_ago + number))
    (cache / ".converting-killed").write_bytes(b"")
    os.utime(cache / ".converting-killed", (long_ago, long_ago))
    (cache / ".converting-now").write_bytes(b"")
    made = converted(adapter(tmp_path), model)
    left = set(os.listdir(cache))
    assert {made.name, ".converting-now", f"old-{KEPT - 1}.gguf"} <= left
    assert {"old-0.gguf", ".converting-killed"} & left == set()


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, model, cache):
    cache.parent.write_text("a file")
    with pytest.raises(ModelFileError, match=r"cannot be kept .*EDGE_EFT_CACHE names another"):
        converted(adapter(tmp_path), model)
