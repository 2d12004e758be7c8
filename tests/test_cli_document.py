"""docs/cli.md: what it says of the command line is so, key by key and name by name."""

import json
import re
from functools import cache

import pytest
from helpers.cli_tools import invoke, run_bench
from helpers.documents import ROOT, blocks

from edge_eft.cli import bench, config_file

DOCUMENT = ROOT / "docs/cli.md"
TEXT = DOCUMENT.read_text("utf-8")


@cache
def documented(command):
    """The keys in the table of a command, each as the tuple of its parts."""
    part = re.search(rf"^### {command}\n(.*?)(?=^### |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", part[1], re.MULTILINE)
    return {tuple(key.split(".")) for row in rows for key in re.findall(r"`([^`]+)`", row)}


def real(value, at=()):
    """The keys of an object and of those in it; what is in a list counts as the list's."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from real(inner, (*at, key))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for each in value:
            yield from real(each, at)
    else:
        yield at


def matches(pattern, key):
    return len(pattern) == len(key) and all(
        word == part or word.isupper() for word, part in zip(pattern, key, strict=True)
    )


def compare(command, *objects):
    """Every real key is documented, and every documented one is real."""
    keys = {key for each in objects for key in real(each) if key}
    patterns = documented(command)
    assert [key for key in keys if not any(matches(each, key) for each in patterns)] == []
    unseen = [each for each in patterns if not any(matches(each, key) for key in keys)]
    return {".".join(each) for each in unseen}


def told(*words, **options):
    result = invoke(*words, "--json", **options)
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))


def test_the_keys_of_run_and_compare_are_those_that_are_documented():
    question = "What is the capital of Peru?"
    views = ("--logprobs", "2", "--explain", "1")
    (alone,) = told("run", "atlas", question, "-t", "0", *views)
    (named,) = told("run", "atlas", "--input", "-", stdin=json.dumps(question))
    assert compare("run", alone, named) == set()
    assert "logprobs" not in named
    (ways,) = told("compare", "atlas", question, "-t", "0")
    assert compare("run", *ways.values()) <= {
        "id",
        *(".".join(each) for each in documented("run") if each[0] == "logprobs"),
    }


def test_the_keys_of_list_and_show_are_those_that_are_documented(home):
    (shelf,) = told("list")
    assert compare("list", shelf) == set()
    (to_pull,) = told("show", "qwen3-8b")
    more = {"deltas": to_pull.pop("deltas"), "pull": to_pull.pop("pull")}
    assert compare("list", to_pull) <= {"models.ROLE.source"}
    assert set(more) == {"deltas", "pull"}
    (here,) = told("show", "atlas")
    assert compare("show", here) == set()


def test_the_keys_of_demo_and_config_are_those_that_are_documented(home):
    (figures,) = told("demo", "--questions", "1")
    assert compare("demo", figures) == set()
    (defaults,) = told("config")
    assert compare("config", defaults) == set()


def test_the_keys_of_bench_are_those_that_are_documented(tiny, prompts_file):
    result, _ = run_bench(
        bench.command, tiny, "--prompts", prompts_file, "--tokens", "4", "--rounds", "1"
    )
    assert compare("bench", result) == set()


def test_the_example_of_a_file_is_one(home, tmp_path):
    (example,) = [each for each in blocks(DOCUMENT) if each.text.startswith("# config.toml")]
    (tmp_path / "config.toml").write_text(example.text)
    (about,) = told("config")
    values = about["values"]
    assert values["mix"] == {"value": "chat=0.7,brief=0.3", "from": "file"}
    assert values["serve.port"] == {"value": "11434", "from": "file"}


def test_every_key_of_the_file_is_named():
    named = re.search(r"^The keys: (.*?)\n\n", TEXT, re.MULTILINE | re.DOTALL)[1]
    keys = re.findall(r"`(\w+)`", named.partition("`--beta`")[0])
    assert sorted(keys) == sorted(config_file.KEYS)


def test_the_tests_of_the_habits_exist():
    table = TEXT.partition("## Habits")[2].partition("\n## ")[0]
    names = re.findall(r"`(test_\w+)` \|$", table, re.MULTILINE)
    assert len(names) == table.count("\n| ") - 1, "each habit has a test"
    written = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in names if f"def {name}(" not in written] == []
