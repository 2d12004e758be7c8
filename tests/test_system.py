"""system: where things are kept on each platform, and what is told of the installation."""

from __future__ import annotations

import pwd
from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix

from edge_eft import system

PLACES = {
    Unix: (".local/state/edge-eft", ".cache/edge_eft"),
    MacOS: ("Library/Application Support/edge-eft", "Library/Caches/edge_eft"),
}


@pytest.mark.parametrize("platform", PLACES)
def test_state_and_cache_stay_where_earlier_versions_put_them(
    platform: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user's history and fetched scripts stay where earlier versions put them."""
    for name in ("EDGE_EFT_HOME", "EDGE_EFT_CACHE", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(platformdirs, "PlatformDirs", platform)
    state, cache = PLACES[platform]
    assert system.state_dir() == tmp_path / state
    assert system.cache_directory() == tmp_path / cache


def test_environment_variables_go_before_the_platforms_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_EFT_CACHE", str(tmp_path / "cache"))
    assert system.state_dir() == tmp_path / "home"
    assert system.cache_directory() == tmp_path / "cache"


@pytest.mark.parametrize("place", ["", "~nobody-here/x"])
def test_without_a_home_directory_a_place_is_an_error_of_the_system(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name, function in (
        ("EDGE_EFT_HOME", system.state_dir),
        ("EDGE_EFT_CACHE", system.cache_directory),
    ):
        monkeypatch.setenv(name, place)
        with pytest.raises(OSError, match="no home directory is known"):
            function()
        monkeypatch.setenv(name, "/kept/here")
        assert function() == Path("/kept/here")


def test_versions_name_what_is_installed() -> None:
    assert system.versions("no-such-package") == ""
    ours = system.versions("llama-cpp-python", "no-such-package", "click")
    assert ours.startswith(f"llama-cpp-python {system.installed_version()}, click ")


def test_mebibytes_are_written_with_thousands_separators() -> None:
    assert system.mebibytes(3 << 20) == "3"
    assert system.mebibytes(1_500 << 20, 1) == "1,500.0"


def test_state_dir_follows_edge_eft_home(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    assert system.state_dir() == tmp_path
    monkeypatch.delenv("EDGE_EFT_HOME")
    assert system.state_dir().name == "edge-eft"


def test_file_sizes_are_written_as_the_hub_does() -> None:
    sizes = (0, 1, 999, 999_499, 144_811_360, 639_447_744, 999_600_000, 5_020_000_000)
    assert [system.byte_size(size) for size in sizes] == [
        *("0 kB", "1 kB", "1 kB", "1000 kB", "145 MB", "639 MB", "1.0 GB", "5.0 GB"),
    ]
    assert system.byte_size(412_300_000_000) == "412 GB"


def test_the_narrowest_control_group_limits_a_container(tmp_path: Path) -> None:
    own, inner = tmp_path / "own", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    own.write_text("0::/outer/inner\n")
    assert system.container_limits(tmp_path, own) == (None, None)
    (tmp_path / "outer" / "memory.max").write_text("1000\n")
    (inner / "memory.max").write_text("max\n")
    (inner / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "outer" / "cpu.max").write_text("max 100000\n")
    assert system.container_limits(tmp_path, own) == (1000, 1.5)
    own.write_text("0::/\n")
    assert system.container_limits(tmp_path, own) == (None, None)


def test_a_containers_memory_counts_and_its_pages_of_files_are_free(tmp_path: Path) -> None:
    own, inner = tmp_path / "own", tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    own.write_text("0::/outer/inner\n")
    machine = system.memory(tmp_path, own)
    assert 0 < machine.available <= machine.total
    (inner / "memory.max").write_text("max\n")
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "900\n"),
        ("memory.stat", "anon 300\nfile 500\nshmem 100\n"),
    ):
        (tmp_path / "outer" / name).write_text(text)
    assert system.memory(tmp_path, own) == (1000, 500)
    (tmp_path / "outer" / "memory.current").write_text("9000\n")
    assert system.memory(tmp_path, own) == (1000, 0)


def test_without_control_groups_nothing_limits(tmp_path: Path) -> None:
    assert system.container_limits(tmp_path, tmp_path / "nothing") == (None, None)
