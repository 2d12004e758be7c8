"""`edge-eft remove`: a recipe goes with what was pulled for it, and nothing else does."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from helpers.cli_tools import complaint, invoke, process
from helpers.hub_cache import files_below, pulled_spec, recipe_of
from helpers.json_keys import unseen_keys
from helpers.recipe_files import write_recipe

from edge_eft.cli.remove import carry_out, make_plan
from edge_eft.errors import RecipeError
from edge_eft.files.pulled import check_here
from edge_eft.files.recipe import ModelSpec
from edge_eft.files.recipe_names import load_recipe, own_recipes, save_recipe


def removed(*words):
    result = invoke("remove", "--yes", "--json", *words)
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    assert unseen_keys("remove", about) <= {"kept.file", "kept.why", "kept"}
    return about


def test_a_pulled_recipe_goes_with_its_files(installed, pull, tiny, tmp_path):
    pull("mine")
    about = removed("mine")
    assert own_recipes() == {}
    assert files_below(tmp_path / "hub") == set()
    assert about["removed"] == ["mine"]
    assert about["freed"] == sum(path.stat().st_size for path in tiny[:3])
    assert (len(about["files"]), about["kept"]) == (3, [])


def test_rm_is_remove_and_says_what_it_freed(installed, pull):
    pull("mine")
    result = invoke("rm", "mine", "-y")
    assert result.stdout.startswith("removed mine; ")
    assert result.stdout.endswith(" kB freed\n")


def test_a_file_that_another_recipe_needs_stays(installed, pull, tmp_path):
    pull("mine")
    pull("other", base="o/other-base")
    about = removed("mine")
    assert len(about["files"]) == 1
    assert {each["why"] for each in about["kept"]} == {"other needs it"}
    assert [spec.file.exists() for spec in load_recipe("other").roles().values()] == [True] * 3
    assert "stays: " in invoke("remove", "-y", "--keep-files", "other").stdout
    pull("other", base="o/other-base")
    assert removed("other")["kept"] == []
    assert files_below(tmp_path / "hub") == set()


def test_recipes_that_share_go_together(installed, pull, tmp_path):
    pull("mine")
    pull("other")
    assert removed("mine", "other", "mine")["removed"] == ["mine", "other"]
    assert files_below(tmp_path / "hub") == set()


def test_files_that_pull_did_not_get_stay(installed, tiny, tmp_path):
    given = tmp_path / "given.gguf"
    given.write_bytes(b"x")
    spec = pulled_spec(tmp_path / "hub", "o/base", b"b")
    save_recipe(recipe_of("mine", spec, ModelSpec(given), ModelSpec(tiny.base)))
    about = removed("mine")
    assert about["freed"] == 1
    assert {each["why"] for each in about["kept"]} == {"pull did not get it"}
    assert given.exists()
    assert tiny.base.exists()


def test_a_file_of_the_cache_that_no_source_names_stays(installed, tiny, tmp_path):
    """`match` makes recipes of what other programs fetched."""
    spec = ModelSpec(pulled_spec(tmp_path / "hub", "o/base", b"b").file)
    save_recipe(recipe_of("mine", spec, spec, spec))
    assert removed("mine")["freed"] == 0
    assert spec.file.exists()


def test_what_an_unreadable_recipe_needs_is_not_known_so_it_stays(installed, pull, tmp_path):
    pull("mine")
    broken = own_recipes()["mine"].with_name("broken.toml")
    broken.write_text("[")
    about = removed("mine")
    assert about["files"] == []
    assert "whether broken needs it is not known" in about["kept"][0]["why"]
    assert removed("broken") == {"removed": ["broken"], "files": [], "freed": 0, "kept": []}
    assert not broken.exists()


def test_what_is_not_ones_own_is_refused_in_a_line(installed, pull, tmp_path):
    pull("mine")
    before = files_below(tmp_path)
    assert "'family' comes with edge_eft and stays" in complaint("remove", "-y", "mine", "family")
    assert "'large-8b' was not pulled" in complaint("remove", "-y", "large-8b")
    assert "near: mine" in complaint("remove", "-y", "mien")
    assert "is a path; remove takes names" in complaint("remove", "-y", "./mine.toml")
    assert "../mine" in complaint("remove", "-y", "../mine")
    assert "RECIPE is missing; give at least one" in complaint("remove", "-y")
    assert files_below(tmp_path) == before


def test_without_a_terminal_nothing_goes_unasked(installed, pull, tmp_path):
    pull("mine")
    before = files_below(tmp_path)
    assert "Removing mine is not asked without a terminal; --yes confirms it." in complaint(
        "remove", "mine", stdin="y\n"
    )
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"y\n", 0), (b"n\n", 1), (b"\n", 1), (b"\3", 130), (b"\4", 130)],
    ids=repr,
)
def test_on_a_terminal_one_is_asked(installed, pull, tmp_path, answer, status):
    pull("mine")
    said, found = on_a_terminal(["remove", "mine"], b"[y/N]: ", answer)
    assert b"Remove mine and free about " in said
    if answer != b"\3":  # which may come before the question's last blank, where nothing is asked
        assert said.endswith(b"\r\n"), "the shell's prompt stands in a line of its own"
    assert found == status
    assert bool(own_recipes()) == (status != 0)
    assert bool(files_below(tmp_path / "hub")) == (status != 0)


def on_a_terminal(words, prompt, answer):
    """What a command says on a terminal, and its status, if one answers its prompt."""
    pty = pytest.importorskip("pty")
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-m", "edge_eft", *words])
    said = b""
    try:
        while chunk := os.read(terminal, 4096):
            said += chunk
            if said.endswith(prompt):
                os.write(terminal, answer)
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Death(BaseException):
    """The end of the process, as far as anybody can tell."""


@pytest.mark.parametrize("moment", range(11))
def test_death_at_any_moment_leaves_no_recipe_that_claims_to_be_whole(
    installed, pull, tmp_path, monkeypatch, moment
):
    """At every name that is taken away, before and after."""
    pull("mine")
    left, unlink = [moment], os.unlink

    def mortal(self, missing_ok=False):
        if left[0] == 0:
            raise Death
        unlink(self)
        left[0] -= 1

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", mortal)
        with contextlib.suppress(Death):
            carry_out(make_plan(["mine"]))
    if "mine" not in own_recipes():
        assert files_below(tmp_path / "hub") == set()
        return
    recipe = load_recipe("mine")
    specs = [recipe.base, recipe.deltas["chat"].tuned, recipe.deltas["chat"].reference]
    if moment == 0:
        assert all(spec.file.exists() for spec in specs)
    else:
        with pytest.raises(RecipeError, match="edge-eft pull mine"):
            check_here(recipe)
    assert removed("mine")["removed"] == ["mine"]


@pytest.mark.slow
def test_kill_9_while_removing_leaves_no_recipe_that_claims_to_be_whole(installed, tiny, tmp_path):
    """Of a model in 100 parts, so that there is a moment to be killed in."""
    parts = [
        pulled_spec(tmp_path / "hub", "o/base", b"%d" % i, file=f"m-{i:05d}-of-00100.gguf")
        for i in range(1, 101)
    ]
    spec = pulled_spec(tmp_path / "hub", "o/tuned", b"t")
    base = ModelSpec(parts[0].file, source=parts[0].source)
    path = save_recipe(recipe_of("mine", base, spec, spec))
    running = process("remove", "-y", "mine")
    while len(list(parts[0].file.parent.iterdir())) == 100 and running.poll() is None:
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    time.sleep(0.3)  # the command's own process hears of its parent's death
    if path.exists():
        with pytest.raises(RecipeError, match="edge-eft pull mine"):
            check_here(load_recipe("mine"))
        removed("mine")
    assert files_below(tmp_path / "hub") == set()


def test_a_file_that_cannot_be_removed_is_a_line_and_the_recipe_stays(installed, pull, monkeypatch):
    pull("mine")

    def refused(paths):
        raise PermissionError(13, "Permission denied", "/hub/m.gguf")

    monkeypatch.setattr("edge_eft.files.pulled.forget", refused)
    said = complaint("remove", "-y", "mine")
    assert "/hub/m.gguf: cannot be removed (Permission denied); the recipe stays" in said
    assert "mine" in own_recipes()


def test_nothing_outside_of_the_cache_goes_by_a_recipe_that_lies(installed, tiny, tmp_path):
    """A stranger's recipe may say that any file is the hub's."""
    precious = tmp_path / "precious.gguf"
    precious.write_bytes(b"x")
    spec = pulled_spec(tmp_path / "hub", "o/base", b"b")
    spec.file.unlink()
    spec.file.symlink_to(precious)
    lie = ModelSpec(precious, source=spec.source)
    save_recipe(recipe_of("mine", spec, lie, lie))
    assert removed("mine")["freed"] == 0
    assert precious.read_bytes() == b"x"


def test_files_of_ones_own_stay_in_one_line_and_a_default_is_said_to_be_gone(
    tiny, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    (home / "recipes").mkdir(parents=True)
    (home / "config.toml").write_text('recipe = "mine"\n')
    monkeypatch.setenv("EDGE_EFT_HOME", str(home))
    write_recipe(home / "recipes" / "mine.toml", tiny.base)
    result = invoke("remove", "mine", "--yes")
    assert result.stdout == "removed mine; your own model files stay\n"
    assert "mine was your default recipe: edge-eft config set recipe NAME" in result.stderr
    assert tiny.base.is_file()
