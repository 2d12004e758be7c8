"""`edge-eft list`: what is here first, then what can be pulled, and what each takes."""

import json
import os
import pty
from pathlib import Path

from helpers.cli_tools import invoke, process
from helpers.hub_cache import files_below

from edge_eft.files.pulled import forget
from edge_eft.files.recipe_names import catalogue, own_recipes


def listed(*words):
    result = invoke("list", "--json", *words)
    assert result.exit_code == 0, result.output
    return {about["name"]: about for about in json.loads(result.stdout)}


def told_on_a_terminal(*words):
    """What a child says on stderr while its stdout is a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs):
        return process("list", *words, stdout=theirs).communicate(timeout=60)[1]


def lines(*words, columns=100):
    return invoke("list", *words, environment={"COLUMNS": str(columns)}).stdout.splitlines()


def test_what_is_here_is_listed_with_what_it_takes(installed, tiny):
    about = listed()["family"]
    assert (about["kind"], about["state"], about["missing"]) == ("embedded", "here", [])
    assert about["bytes"] == sum(path.stat().st_size for path in tiny[:2])
    assert about["bytes_to_pull"] == 0
    assert not about["memory_approximate"]
    assert about["memory"] > about["bytes"]
    assert (about["fits"], about["drafts"]) == ("yes", "exact")
    assert 0.9 < about["ratio"] < 1.1
    assert about["models"]["base"]["here"]


def test_what_can_be_pulled_is_listed_with_what_is_known(installed):
    found = listed()
    about = found["large-8b"]
    assert (about["kind"], about["state"]) == ("catalogue", "to pull")
    assert about["bytes"] == about["bytes_to_pull"] == 6_200_000_000
    assert about["memory_approximate"]
    assert 6.2e9 < about["memory"] < 9e9
    assert (about["ratio"], about["drafts"], about["gated"]) == (0.12, "rounding", True)
    assert found["large-4b"]["drafts"] == "exact"
    assert not found["large-4b"]["gated"], "only adapters need its gated instruct model"
    assert {name: found[name]["fits"] for name in found} == {
        "family": "yes",
        "large-4b": "yes",
        "large-8b": "yes",
        "large-700b": "no",
    }
    assert about["models"]["base"]["source"]["repo"] == "o/large-8b-GGUF"


def test_the_table_has_what_is_here_above_and_counts_as_people_do(installed):
    text = lines()
    assert " ".join(text[0].split()) == "here size memory fits ratio drafts notes, licence"
    assert [line.split()[0] for line in text if line.startswith("large")] == [
        "large-4b",
        "large-8b",
        "large-700b",
    ]
    below = text[text.index("") + 1]
    assert below.startswith("to pull ")
    (row,) = [line for line in text if line.startswith("large-8b")]
    assert row.split()[1:3] == ["6.2", "GB"]
    assert row.endswith("rounding  gated; Apache-2.0")


def test_the_next_command_is_told_on_a_terminal_alone(installed):
    assert invoke("list").stderr == ""
    *legend, told = told_on_a_terminal("smollm2").splitlines()
    assert told == "edge-eft show NAME says more of one, edge-eft pull NAME gets it"
    explained = [line.split()[0] for line in legend if line[:1].isalpha()]
    assert explained == ["memory", "fits", "ratio", "drafts"], "and what the columns mean"


def test_words_pick_recipes(installed):
    assert list(listed("LARGE", "8b")) == ["large-8b"]
    assert list(listed("--here")) == ["family"]
    result = invoke("list", "nothing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no recipe has 'nothing'" in result.stderr
    assert invoke("list", "nothing", "--json").exit_code == 1
    assert invoke("list", "--here").exit_code == 0


def test_a_pulled_recipe_takes_the_place_of_the_catalogues(installed, pull, tmp_path):
    path = pull("large-8b")
    about = listed()["large-8b"]
    assert (about["kind"], about["state"], about["path"]) == ("pulled", "here", str(path))
    # What it has of another's models need not be fetched again.
    about = listed()["large-4b"]
    assert (about["state"], about["bytes_to_pull"]) == ("partly here", 4_000_000_000)
    assert any("4.0 GB to fetch" in line for line in lines("large-4b"))


def test_a_pulled_file_that_is_gone_is_missing_until_it_is_pulled_again(
    installed, pull, tmp_path, tiny
):
    pull("mine")
    name = next(n for n in files_below(tmp_path / "hub") if "o--base/snapshots" in f"{n}")
    forget([tmp_path / "hub" / name])
    about = listed()["mine"]
    assert (about["state"], len(about["missing"])) == ("partly here", 1)
    assert about["bytes_to_pull"] == tiny.base.stat().st_size
    assert any(" kB to fetch" in line for line in lines("mine"))
    assert "edge-eft pull mine completes it" in told_on_a_terminal("mine")
    forget([tmp_path / "hub" / name for name in files_below(tmp_path / "hub")])
    about = listed()["mine"]
    assert (about["state"], len(about["missing"])) == ("to pull", 3)
    assert lines("mine")[0].startswith("to pull ")
    assert listed("--here") == {"family": listed()["family"]}


def test_a_broken_recipe_of_ones_own_is_told_and_the_others_are_listed(installed, pull):
    pull("mine")
    place = own_recipes()["mine"].parent
    (place / "broken.toml").write_text("name = [")
    (place / "odd.toml").mkdir()
    result = invoke("list")
    assert result.exit_code == 0
    assert "mine" in result.stdout
    assert "family" in result.stdout
    broken, odd, *_ = result.stderr.splitlines()
    assert "broken.toml: is not valid TOML" in broken
    assert "odd.toml" in odd
    assert listed()["broken"]["state"] == "unreadable"


def test_a_damaged_model_is_told_and_the_others_are_listed(installed, pull, tmp_path):
    pull("mine")
    name = next(n for n in files_below(tmp_path / "hub") if "o--base/blobs" in f"{n}")
    (tmp_path / "hub" / name).write_bytes(b"GGUF" + b"\0" * 100)
    about = listed()["mine"]
    assert (about["state"], about["memory"], about["fits"]) == ("here", None, None)
    assert "m.Q8_0.gguf" in about["problem"]
    assert any("damaged" in line for line in lines("mine"))


def test_files_of_ones_own_that_are_missing_are_not_to_be_pulled(installed, recipe):
    os.makedirs(installed.parents[2] / "home" / "recipes")
    (installed.parents[2] / "home" / "recipes" / "mine.toml").write_text(Path(recipe).read_text())
    about = listed()["mine"]
    assert (about["kind"], about["state"], len(about["missing"])) == ("own", "files missing", 1)
    assert about["memory"] is None
    assert any("1 file missing" in line for line in lines("mine"))


def test_a_recipe_without_a_base_is_listed(installed, pull, tmp_path):
    path = pull("mine")
    text = path.read_text()
    path.write_text(text.split("[base]")[0] + text[text.index("[delta") :])
    assert listed()["mine"]["memory"] is None
    assert any("needs --base" in line for line in lines("mine"))


def test_the_table_of_what_can_be_pulled(installed):
    wide = [
        "to pull       size   memory  fits  ratio  drafts    notes, licence",
        "─" * 69,
        "large-4b    5.2 GB  ~6.0 GB  yes     .15  exact     Apache-2.0",
        "large-8b    6.2 GB  ~7.1 GB  yes     .12  rounding  gated; Apache-2.0",
        "large-700b  401 GB  ~406 GB  no      .00  rounding  Apache-2.0",
    ]
    assert lines("large") == wide
    assert lines("large", columns=80) == wide
    assert lines("large", columns=40) == [
        "to pull",
        "─" * 40,
        "large-4b",
        "  size 5.2 GB; memory ~6.0 GB; fits yes;",
        "  ratio .15; drafts exact; Apache-2.0",
        "large-8b",
        "  size 6.2 GB; memory ~7.1 GB; fits yes;",
        "  ratio .12; drafts rounding; gated;",
        "  Apache-2.0",
        "large-700b",
        "  size 401 GB; memory ~406 GB; fits no;",
        "  ratio .00; drafts rounding; Apache-2.0",
    ]


def test_the_whole_catalogue_fits_and_no_name_is_broken():
    for columns in (100, 80, 40):
        table = lines(columns=columns)
        assert max(map(len, table)) <= columns
        first = {line.split()[0] for line in table if line[:1].isalnum()}
        assert first >= set(catalogue())


def test_forty_recipes_have_a_line_each(installed):
    text = (installed / "catalogue" / "large-8b.toml").read_text().replace("Apache", "A" * 90)
    for number in range(40):
        (installed / "catalogue" / f"a-family-with-a-name-{number}b.toml").write_text(text)
    for columns in (100, 80):
        table = lines(columns=columns)
        assert len(table) == 44 + 5
        assert max(map(len, table)) <= columns
        assert all("gated" in line for line in table if line.startswith("a-family")), "notes stay"


def test_names_and_licences_cannot_drive_the_terminal(installed):
    place = installed / "catalogue" / "evil\x1b[2J.toml"
    text = (installed / "catalogue" / "large-8b.toml").read_text()
    place.write_text(text.replace("Apache-2.0", "A\\u001b]0;x\\u0007B"))
    result = invoke("list")
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout


def test_nothing_is_listed_where_nothing_is(installed, monkeypatch):
    monkeypatch.setattr("edge_eft.files.recipe_names.__file__", "/nowhere/a/b.py")
    assert invoke("list", "--json").stdout == "[]\n"
    assert "no recipe is here" in invoke("list").stderr
