"""`edge-eft verify`: every file against what its recipe states of it."""

import json
import os
import signal
from dataclasses import replace

import pytest
from helpers.cli_tools import complaint, invoke
from helpers.gguf_parts import split_model
from helpers.hub_cache import files_below, recipe_of
from helpers.json_keys import unseen_keys
from helpers.pseudo_terminal import OnTerminal

from edge_eft.files import hashes as hashes_module
from edge_eft.files.hashes import file_sha256, model_sha256
from edge_eft.files.pulled import forget
from edge_eft.files.recipe import ModelSpec
from edge_eft.files.recipe_names import load_recipe, own_recipes, save_recipe


def verdicts(*names, status):
    result = invoke("verify", "--json", *names)
    assert result.exit_code == status, result.output
    about = json.loads(result.stdout)
    assert unseen_keys("verify", about) == set()
    return [(each["roles"], each["verdict"]) for each in about], result.stderr


def blob(tmp_path, role):
    names = files_below(tmp_path / "hub")
    return tmp_path / "hub" / next(name for name in names if f"o--{role}/blobs" in name)


def test_files_as_stated_are_ok(installed, pull):
    pull("mine")
    seen, said = verdicts("mine", status=0)
    assert seen == [(["base"], "ok"), (["tuned:chat"], "ok"), (["reference:chat"], "ok")]
    assert said == ""
    table = [line.split() for line in invoke("verify", "mine").stdout.splitlines()]
    assert table[0] == ["verdict", "file", "recipe", "roles"]
    roles = ("base", "tuned:chat", "reference:chat")
    assert table[2:] == [["ok", "m.Q8_0.gguf", "mine", role] for role in roles]


def test_a_file_that_two_roles_have_is_read_once(installed, tiny, monkeypatch):
    digest = model_sha256(tiny.base)
    spec, tuned = ModelSpec(tiny.base, digest), ModelSpec(tiny.tuned, model_sha256(tiny.tuned))
    for name in ("mine", "other"):
        save_recipe(recipe_of(name, spec, tuned, spec))
    read = []
    monkeypatch.setattr(
        hashes_module, "file_sha256", lambda path, **_: read.append(path) or file_sha256(path)
    )
    seen, _ = verdicts("mine", "other", status=0)
    assert seen == 2 * [(["base", "reference:chat"], "ok"), (["tuned:chat"], "ok")]
    assert len(read) == 2


@pytest.mark.parametrize(
    ("harm", "verdict", "why"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "differs", "sha256 is "),
        (lambda data: data[:-1], "differs", "bytes are stated"),
        (lambda data: b"GGUF" + b"\xff" * (len(data) - 4), "differs", "sha256 is "),
    ],
    ids=["flipped", "short", "overwritten"],
)
def test_a_file_that_differs_is_status_2_and_the_command_that_gets_it(
    installed, pull, tmp_path, harm, verdict, why
):
    pull("mine")
    file = blob(tmp_path, "base")
    file.write_bytes(harm(file.read_bytes()))
    seen, said = verdicts("mine", status=2)
    assert seen[0] == (["base"], verdict)
    assert said == "edge-eft: 1 file of 'mine' not as stated; edge-eft pull mine gets it again\n"
    shown = invoke("verify", "mine").stdout.splitlines()
    assert shown[2].startswith(verdict)
    remark = " ".join(" ".join(line.split()) for line in shown[3:-2])
    assert why in remark or "sha256 is" in remark
    assert all(line.startswith("ok") for line in shown[-2:])


def test_the_table_fits_and_has_every_file(installed, pull, tmp_path):
    pull("mine")
    file = blob(tmp_path, "tuned")
    file.write_bytes(file.read_bytes()[:-1])
    for columns in (100, 80):
        shown = invoke("verify", "mine", environment={"COLUMNS": str(columns)}).stdout.splitlines()
        assert max(map(len, shown)) <= columns
        assert shown[0] == "verdict     file         recipe  roles"
        assert shown[2] == "ok          m.Q8_0.gguf  mine    base"
        assert shown[3] == "differs     m.Q8_0.gguf  mine    tuned:chat"
        assert shown[-1] == "ok          m.Q8_0.gguf  mine    reference:chat"
    narrow = invoke("verify", "mine", environment={"COLUMNS": "40"}).stdout.splitlines()
    assert max(map(len, narrow)) <= 40
    assert narrow[:5] == [
        "verdict",
        "─" * 40,
        "ok  m.Q8_0.gguf",
        "  recipe mine; roles base",
        "differs  m.Q8_0.gguf",
    ]


def test_a_file_that_is_gone_is_missing(installed, pull, tmp_path):
    pull("mine")
    name = next(n for n in files_below(tmp_path / "hub") if "o--tuned/snapshots" in n)
    forget([tmp_path / "hub" / name])
    seen, said = verdicts(status=2)
    assert (["tuned:chat"], "missing") in seen
    assert "edge-eft pull mine" in said


def test_what_is_not_stated_is_no_fault_and_a_damaged_header_is(installed, tiny, tmp_path):
    seen, _ = verdicts(status=0)  # all that is here: the embedded family
    assert {verdict for _, verdict in seen} == {"not stated"}
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(tiny.base.read_bytes()[:3000])
    save_recipe(recipe_of("mine", ModelSpec(bad), ModelSpec(tiny.tuned), ModelSpec(tiny.base)))
    seen, said = verdicts("mine", status=2)
    assert [verdict for _, verdict in seen] == ["damaged", "not stated", "not stated"]
    assert "put back what was there, or correct " in said


def test_a_recipe_that_is_not_pulled_has_nothing_to_compare(installed):
    seen, said = verdicts("large-8b", status=2)
    assert [verdict for _, verdict in seen] == ["not pulled"] * 3
    told = "3 files of 'large-8b' not on this machine yet; edge-eft pull large-8b gets them"
    assert said == f"edge-eft: {told}\n"
    recipe = load_recipe("large-8b")
    save_recipe(replace(recipe, name="half"))
    assert "half" not in invoke("verify").stdout, "it is not here, and nobody asked for it"


def test_a_file_that_cannot_be_read_is_told_and_the_others_are_compared(
    installed, pull, monkeypatch
):
    pull("mine")

    def refused(path, **options):
        if "o--base" in str(path):
            raise PermissionError(13, "Permission denied")
        return file_sha256(path)

    monkeypatch.setattr(hashes_module, "file_sha256", refused)
    seen, _ = verdicts("mine", status=2)
    assert [verdict for _, verdict in seen] == ["damaged", "ok", "ok"]


def test_every_part_of_a_split_model_is_compared(installed, tiny, tmp_path):
    first = split_model(tiny.base, tmp_path, 3)
    hashes = model_sha256(first)
    base = ModelSpec(first, hashes)
    save_recipe(recipe_of("mine", base, ModelSpec(tiny.tuned), ModelSpec(tiny.reference)))
    seen, _ = verdicts("mine", status=0)
    assert seen[:3] == 3 * [(["base"], "ok")]
    last = tmp_path / "split-00003-of-00003.gguf"
    last.write_bytes(last.read_bytes()[:-1] + b"\7")
    seen, _ = verdicts("mine", status=2)
    assert [verdict for _, verdict in seen[:3]] == ["ok", "ok", "differs"]
    last.unlink()
    seen, _ = verdicts("mine", status=2)
    assert [verdict for _, verdict in seen[:3]] == ["ok", "ok", "missing"]


def test_a_name_that_nobody_has_is_one_line(installed, pull):
    assert "near: family" in complaint("verify", "familly")
    pull("mine")
    (own_recipes()["mine"].parent / "broken.toml").write_text("[")
    result = invoke("verify")
    assert result.exit_code == 2
    assert "broken.toml: is not valid TOML" in result.stderr
    assert result.stdout.count("mine    ") == 3, "the others are compared all the same"


def test_large_files_show_how_far_they_are_and_ctrl_c_is_130(installed, tiny, tmp_path):
    """A sparse file of 6 GB behind the header's extent takes seconds to hash."""
    large = tmp_path / "large.gguf"
    large.write_bytes(tiny.base.read_bytes())
    os.truncate(large, 6 << 30)
    spec = ModelSpec(large, "0" * 64)
    save_recipe(recipe_of("mine", spec, ModelSpec(tiny.tuned), spec))
    running = OnTerminal("verify", "mine")
    running.read(until=r"comparing large.gguf .* of 6.4 GB")
    os.kill(running.pid, signal.SIGINT)
    assert running.status() == 130
    assert running.text() == ""
