"""docs/cli.md: what it says of the command line is so, key by key and name by name."""

import json
import re

import pytest
from helpers.cli_tools import invoke, run_bench
from helpers.documents import ROOT, blocks
from helpers.json_keys import documented, unseen_keys

from edge_eft.cli import bench, config_file

DOCUMENT = ROOT / "docs/cli.md"
TEXT = DOCUMENT.read_text("utf-8")


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
    assert unseen_keys("run", alone, named) == set()
    assert "logprobs" not in named
    (ways,) = told("compare", "atlas", question, "-t", "0")
    assert unseen_keys("run", *ways.values()) <= {
        "id",
        *(".".join(each) for each in documented("run") if each[0] == "logprobs"),
    }


def test_the_keys_of_list_and_show_are_those_that_are_documented(home):
    (shelf,) = told("list")
    assert unseen_keys("list", shelf) == set()
    (to_pull,) = told("show", "qwen3-8b")
    more = {"deltas": to_pull.pop("deltas"), "pull": to_pull.pop("pull")}
    assert unseen_keys("list", to_pull) <= {"models.ROLE.source"}
    assert set(more) == {"deltas", "pull"}
    (here,) = told("show", "atlas")
    assert unseen_keys("show", here) == set()


def test_the_keys_of_demo_and_config_are_those_that_are_documented(home):
    (figures,) = told("demo", "--questions", "1")
    assert unseen_keys("demo", figures) == set()
    (defaults,) = told("config")
    assert unseen_keys("config", defaults) == set()


def test_the_keys_of_bench_are_those_that_are_documented(tiny, prompts_file):
    result, _ = run_bench(
        bench.command, tiny, "--prompts", prompts_file, "--tokens", "4", "--rounds", "1"
    )
    assert unseen_keys("bench", result) == set()


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
