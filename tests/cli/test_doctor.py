"""`edge-eft doctor` as it is typed: text and JSON, exit status, and what it must not tell."""

import json
import os
import re

import pytest
from helpers.cli_tools import complaint, invoke, process
from helpers.json_keys import unseen_keys
from helpers.recipe_files import write_recipe

from edge_eft.cli import build_checks, machine_checks
from edge_eft.cli.build_checks import Trial
from edge_eft.cli.finding import Finding


@pytest.fixture
def person(tmp_path, monkeypatch):
    """A home of somebody who would be recognised, and a recipe in it."""
    home = tmp_path / "annabelle-quux"
    home.mkdir()
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "annabelle-quux")
    monkeypatch.setenv("HOME", str(home))
    for name in ("EDGE_EFT_HOME", "EDGE_EFT_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


def run(*words, **options):
    child = process("doctor", *words, **options)
    out, err = child.communicate(timeout=100)
    return child.returncode, out, err


def test_every_line_has_a_verdict_in_words():
    status, out, err = run("atlas")
    assert err == ""
    names = re.findall(r"^(?:ok|note|warning) +(\S+)", out, re.MULTILINE)
    expected = "versions machine llama.cpp instructions decode threads memory bandwidth recipe hub"
    assert set(expected.split()) < set(names)
    lines = out.splitlines()
    assert all(re.match(r"(ok|note|warning) +\S|\s{20}", line) for line in lines)
    assert status == int(any(line.startswith("warning") for line in lines))


def test_neither_text_nor_json_tells_who_and_where_you_are(person):
    """It is pasted into bug reports. The files are missing, so that errors are told as well."""
    recipe = write_recipe(person / "mine.toml", person / "models" / "none.gguf")
    for words in ((), ("--json",)):
        status, out, err = run(recipe, *words)
        assert (status, err) == (1, "")
        assert "none.gguf" in out
        for private in ("annabelle", str(person.parent)):
            assert private not in out


def test_where_llama_cpp_cannot_be_loaded_it_says_how_to_reinstall_it(person):
    """That is when it is needed most."""
    (person / "llama_cpp").mkdir()
    (person / "llama_cpp" / "__init__.py").write_text(
        "raise OSError(f'{__file__}: libgomp.so.1: cannot open shared object file')"
    )
    path = os.pathsep.join([str(person), *filter(None, [os.environ.get("PYTHONPATH")])])
    status, out, err = run("atlas", env={**os.environ, "PYTHONPATH": path})
    assert (status, err) == (1, "")
    assert re.search(r"^warning  llama.cpp +cannot be loaded: OSError: ", out, re.MULTILINE)
    assert re.search(r"^ +CMAKE_ARGS=.*pip install", out, re.MULTILINE)
    assert re.search(r"^ok +bandwidth +[\d.]+ GB/s", out, re.MULTILINE)
    assert "annabelle" not in out


def test_a_recipe_that_is_not_there_is_one_line():
    assert "no-such" in complaint("doctor", "no-such")


# -- how findings are shown ----------------------------------------------------------------


@pytest.fixture
def scripted(monkeypatch):
    """Make `doctor` find this."""

    def use(*findings):
        monkeypatch.setattr(build_checks, "try_out", lambda *_: Trial({}))
        monkeypatch.setattr(build_checks, "examine", lambda _: iter(findings))
        monkeypatch.setattr(machine_checks, "bandwidth", lambda _: Finding("bandwidth", "?"))
        monkeypatch.setattr(machine_checks, "disks", lambda: iter(()))

    return use


def test_notes_are_status_0_and_a_warning_is_1(scripted):
    scripted(Finding("a", "b", "note", "do"))
    assert invoke("doctor").exit_code == 0
    scripted(Finding("a", "b", "warning", "do"))
    assert invoke("doctor").exit_code == 1


def test_json_has_the_same_data(scripted):
    finding = Finding("a", "b c", "note", "do this", "CMAKE_ARGS=x pip", {"n": 1})
    scripted(finding)
    out = invoke("doctor", "--json").stdout
    first, *others = json.loads(out)["findings"]
    assert first == vars(finding)
    assert unseen_keys("doctor", {"findings": [first]}) == set()
    text = invoke("doctor").stdout
    assert all(str(value) in text for value in (first["value"], first["advice"]))
    assert re.findall(r"^(?:ok|note|warning) +(\S+)", text, re.MULTILINE) == [
        each["name"] for each in (first, *others)
    ]


def test_a_command_stays_on_one_line(scripted):
    command = "CMAKE_ARGS='" + "-DX=ON " * 40 + "' pip install"
    scripted(Finding("a", "word " * 60, "note", "type", command))
    lines = invoke("doctor").stdout.splitlines()
    assert command in [line.strip() for line in lines]


def test_on_forty_columns_what_was_found_stands_below_its_name(scripted):
    scripted(Finding("instructions", "word " * 9, "warning", "do this " * 5, "COMMAND " * 9))
    said = invoke("doctor", environment={"COLUMNS": "40"}).stdout.splitlines()
    assert said[:7] == [
        "warning instructions",
        "  word word word word word word word",
        "  word word",
        "  do this do this do this do this do",
        "  this",
        "  " + " ".join(["COMMAND"] * 9),
        "ok threads",
    ]
    wide = invoke("doctor", environment={"COLUMNS": "80"}).stdout.splitlines()
    assert wide[:2] == [
        "warning  instructions  word word word word word word word word word",
        f"{'':23}do this do this do this do this do this",
    ]
    assert all(len(line) <= 80 for line in wide if "COMMAND" not in line)


def test_control_characters_of_strangers_are_not_shown(scripted):
    scripted(Finding("a", "GPU \x1b[2J\x07evil\nline", "note", "\x1b]0;x\x07do"))
    assert "\x1b" not in invoke("doctor").stdout
    assert "GPU evil line" in invoke("doctor").stdout
