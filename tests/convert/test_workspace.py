"""workspace: files with their final names are whole, whatever happens."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
from helpers.convert_tools import command_line, convert_quietly, left_in, run

from edge_eft.convert import ConversionError
from edge_eft.convert import workspace as workspaces
from edge_eft.convert.options import Options
from edge_eft.convert.workspace import Workspace, parse_size
from edge_eft.files.hashes import verify
from edge_eft.files.recipe_names import load_recipe


def test_an_existing_output_is_replaced_only_with_force(pair, text, tmp_path):
    convert_quietly(*pair, tmp_path, text=text)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ConversionError, match="--force"):
        convert_quietly(*pair, tmp_path, text=text)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    convert_quietly(*pair, tmp_path, text=text, force=True)
    assert left_in(tmp_path) == sorted(before)


def test_a_full_disk_is_refused_before_anything_is_written(pair, text, tmp_path, monkeypatch):
    usage = workspaces.shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(workspaces.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConversionError, match=r"MiB are free$"):
        convert_quietly(*pair, tmp_path / "out", text=text)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", [28, 122, 5], ids=["full", "quota", "broken"])
def test_a_disk_that_fails_under_way_is_one_line(pair, text, tmp_path, monkeypatch, fault):
    def fails(source: object, target: object) -> None:
        raise OSError(fault, os.strerror(fault), target)

    monkeypatch.setattr(workspaces.os, "replace", fails)
    with pytest.raises(ConversionError, match=f"out.*: {os.strerror(fault)}"):
        convert_quietly(*pair, tmp_path / "out", text=text)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_named_whoever_failed_for_it(tmp_path, monkeypatch):
    usage = workspaces.shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr(workspaces.shutil, "disk_usage", lambda _: usage)
    with (
        pytest.raises(ConversionError, match=r"iostream error; the disk of .* is full"),
        Workspace(tmp_path, "x", force=False),
    ):
        raise ConversionError("cannot quantise: iostream error")


def test_force_never_replaces_an_input(pair, text, tmp_path):
    tuned = tmp_path / "pair-tuned-Q8_0.gguf"
    tuned.write_bytes(pair[1].read_bytes())
    notes = tmp_path / "notes.txt"
    notes.write_text(text.read_text())
    for options in (
        {},
        {"type": "AUTO", "max_kl": 1.0},
        {"files": "{part}.gguf", "recipe": notes, "text": notes},
    ):
        with pytest.raises(ConversionError, match="never replaced"):
            convert_quietly(pair[0], tuned, tmp_path, **{"text": text, "force": True, **options})
        assert tuned.read_bytes() == pair[1].read_bytes()
        assert left_in(tmp_path) == ["notes.txt", "pair-tuned-Q8_0.gguf"]


def test_force_never_replaces_a_file_of_an_input_directory(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "mine.toml").write_text("")
    with Workspace(tmp_path / "out", "x", force=True, inputs=[tmp_path]) as workspace:
        workspace.check_free([tmp_path / "mine.toml", tmp_path / "new.json"])  # a former result
        with pytest.raises(ConversionError, match="never replaced"):
            workspace.check_free([tmp_path / "config.json"])
        with pytest.raises(ConversionError, match="is a directory"):
            workspace.check_free([tmp_path / "out"])


def test_force_never_replaces_a_later_part_of_an_input(tmp_path):
    parts = [tmp_path / f"x-0000{n}-of-00002.gguf" for n in (1, 2)]
    options = Options(parts[0], {}, tmp_path / "out", "x")
    assert options.inputs == parts
    parts[1].write_bytes(b"weights")
    with Workspace(options.out, "x", force=True, inputs=options.inputs) as workspace:
        workspace.check_free([tmp_path / "other.gguf"])
        with pytest.raises(ConversionError, match="never replaced"):
            workspace.check_free([parts[1]])


def test_sizes_are_read_with_their_unit():
    assert parse_size("700M") == 700_000_000
    assert parse_size("1.5 GiB") == 1.5 * 2**30
    with pytest.raises(ConversionError):
        parse_size("0")


def test_a_second_conversion_of_the_same_name_is_refused(tmp_path):
    with (
        Workspace(tmp_path, "x", force=False),
        pytest.raises(ConversionError, match="another conversion"),
        Workspace(tmp_path, "x", force=False),
    ):
        pass
    assert left_in(tmp_path) == []


@pytest.mark.slow
def test_kill_at_any_moment_leaves_no_broken_file(pair, text, tmp_path):
    """What has its final name is whole, and a rerun needs no --force."""
    out = tmp_path / "out"
    arguments = ("--reference", pair[0], "--tuned", pair[1], "--text", text,
                 "--name", "killed", "--out", out, "--quiet")  # fmt: skip
    started = time.monotonic()
    assert run(*arguments).returncode == 0
    whole = time.monotonic() - started
    expected = {p.name: p.read_bytes() for p in out.glob("*.gguf")}
    for path in out.iterdir():
        path.unlink()
    rng = random.Random(0)
    finished = 0
    n_kills = int(os.environ.get("EDGE_EFT_TEST_KILLS", "10"))
    for attempt in range(n_kills):
        # Half of the kills fall into the last part, where the renames are.
        share = rng.uniform(0.0, 1.0) if attempt % 2 else rng.uniform(0.85, 1.1)
        process = subprocess.Popen(
            command_line(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(share * whole)
        process.send_signal(signal.SIGKILL)
        finished += process.wait() == 0
        for path in out.glob("*.gguf") if out.exists() else ():
            assert path.read_bytes() == expected[path.name]
        if (out / "killed.toml").exists():
            verify(load_recipe(out / "killed.toml"))
            json.loads((out / "killed.fidelity.json").read_text())
            (out / "killed.toml").unlink()
            for path in out.glob("killed*"):
                path.unlink()
    assert finished < n_kills
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert {p.name: p.read_bytes() for p in out.glob("*.gguf")} == expected
    assert [name for name in left_in(out) if name.startswith(".")] == []
