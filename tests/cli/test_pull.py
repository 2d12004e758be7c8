"""`edge-eft pull` against a stand-in of the hub: what comes, what is refused before, what stays."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import psutil
import pytest
from helpers import recipe_files, tiny_models
from helpers.cli_tools import complaint, invoke, process, wait_for
from helpers.gguf_parts import split_model
from helpers.hub_server import HubServer, use
from helpers.json_keys import unseen_keys

import edge_eft
from edge_eft.cli.pull_wish import wish
from edge_eft.files import hub_transfer
from edge_eft.files.gguf_split import part_paths
from edge_eft.files.hashes import verify
from edge_eft.files.hub_file import HubFile
from edge_eft.files.pulled import check_here
from edge_eft.files.recipe_names import load_recipe
from edge_eft.files.recipe_toml import read_recipe
from edge_eft.system import byte_size

posix = pytest.mark.skipif(os.name != "posix", reason="signals, limits and terminals of POSIX")

BASE, TUNED, REFERENCE = "maker/Big-Base-GGUF", "maker/Small-Instruct-GGUF", "maker/Small-Base-GGUF"
FILES = {
    BASE: "Big-Base.Q8_0.gguf",
    TUNED: "Small-Instruct-Q8_0.gguf",
    REFERENCE: "Small-Base.Q8_0.gguf",
}


@pytest.fixture(scope="session")
def models(folder):
    """The content of three models that go together, the base the largest."""
    base = tiny_models.write_random(folder / "hub-base.gguf", seed=1, d=128, n_layer=4)
    paths = [tiny_models.write_random(folder / f"hub-{i}.gguf", seed=i) for i in (2, 3)]
    plain = tiny_models.write_random(folder / "hub-plain.gguf", seed=3, chat_template=None)
    return dict(zip(FILES, [each.read_bytes() for each in (base, paths[0], plain)], strict=True))


@pytest.fixture
def server(models):
    with HubServer() as server:
        for repo, file in FILES.items():
            server.add(repo, {file: models[repo], "README.md": b"a card"})
        yield server


@pytest.fixture
def home(tmp_path):
    """Where a child process keeps its cache and recipes."""
    return tmp_path


@pytest.fixture
def at(server, monkeypatch, tmp_path):
    """Pulls in this process go to the stand-in; the cache."""
    return use(server, monkeypatch, tmp_path)


def pulled(*arguments):
    """What a pull in this process says, which must end well."""
    result = invoke("pull", *arguments)
    assert result.exit_code == 0, result.output
    return result.stderr


def environment(server, home, **more):
    """What a user would set, and nothing of this machine's own."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "HUGGING")) and not key.lower().endswith("_proxy")
    }
    return {
        **kept,
        "HF_ENDPOINT": server.address(),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "EDGE_EFT_HOME": str(home / "own"),
        **more,
    }


def run(server, home, *arguments, **more):
    """Status, stdout and stderr of a pull in a process of its own."""
    child = process("pull", *arguments, env=environment(server, home, **more))
    out, err = child.communicate(timeout=60)
    assert "Traceback" not in err
    return child.returncode, out, err


def refused(*arguments):
    """The line on stderr of a pull in this process that must fail, after what it tells first."""
    result = invoke("pull", *arguments)
    assert result.exit_code == 2, result.output
    *_, line = result.stderr.splitlines()
    assert line.startswith("edge-eft: ")
    return line


def trio(**more):
    """The options that name the three repositories."""
    named = {"base": BASE, "tuned": TUNED, "reference": REFERENCE, "name": "mine", **more}
    return [word for key, value in named.items() for word in (f"--{key}", value)]


def write(folder, name="family", **sources):
    """A recipe whose models the hub has."""
    written = {
        role: f'repo = "{repo}", file = "{file}"'
        for role, (repo, file) in zip(("base", "tuned", "reference"), FILES.items(), strict=True)
    }
    for role, more in sources.items():
        written[role] += f", {more}"
    path = folder / f"{name}.toml"
    path.write_text(
        f'description = "A family"\nlicense = "MIT"\nn_ctx = 128\n'
        f"[base]\nsource = {{ {written['base']} }}\n"
        f"[delta.chat]\ntuned = {{ source = {{ {written['tuned']} }} }}\n"
        f"reference = {{ source = {{ {written['reference']} }} }}\n"
    )
    return path


_NO_HOME = """
import pwd
def nobody(*_): raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = nobody
"""


def whole_file(models):
    """What matches the request for all of the base, which is not one for its header."""
    return f"/store/{BASE}/.* bytes=0-{len(models[BASE]) - 1}$"


def test_a_recipe_is_pulled_and_runs(server, home, models, monkeypatch):
    status, out, err = run(server, home, write(home))
    assert (status, out) == (0, "")
    assert "next: edge-eft chat family" in err
    monkeypatch.setenv("EDGE_EFT_HOME", str(home / "own"))
    recipe = load_recipe("family")
    for repo, spec in zip(FILES, (recipe.base, recipe.deltas["chat"].tuned), strict=False):
        assert spec.file.read_bytes() == models[repo]
        assert spec.file.is_relative_to(home / "hf" / "hub")
        commit, size = server.repos[repo].head, len(models[repo])
        assert spec.source == HubFile(repo, FILES[repo], commit, size)
        assert spec.sha256 == server.sha256(models[repo])
    child = process(
        *("run", "family", "the red one", "--max-tokens", "4"), env=environment(server, home)
    )
    out, err = child.communicate(timeout=60)
    assert (child.returncode, bool(out)) == (0, True), err


def test_what_is_here_is_compared_and_not_fetched_again(server, at, tmp_path, monkeypatch):
    path = write(tmp_path)
    pulled(path)
    recipe = (tmp_path / "own/recipes/family.toml").read_bytes()
    server.log.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for given in (path, "family"):
        assert "family was here already" in pulled(given)
    assert not server.log
    assert (tmp_path / "own/recipes/family.toml").read_bytes() == recipe


def test_a_damaged_file_is_found_and_fetched_alone(server, at, tmp_path, models):
    pulled(write(tmp_path))
    blob = next(at.glob("models--maker--Big*/blobs/*"))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    server.log.clear()
    assert "damaged; it is fetched again" in pulled("family")
    assert server.sent() == len(models[BASE])
    assert blob.read_bytes() == models[BASE]


def test_a_damaged_header_is_fetched_again_too(server, at, tmp_path, models):
    pulled(write(tmp_path))
    blob = next(at.glob("models--maker--Big*/blobs/*"))
    blob.write_bytes(b"FUGG" + models[BASE][4:])
    pulled("family")
    assert blob.read_bytes() == models[BASE]


def test_a_damaged_beginning_does_not_stand_in_the_way(server, at, tmp_path, models):
    path = write(tmp_path)
    server.fault(whole_file(models), after=500_000, flip=0, times=1)
    gone = server.fault("bytes=500000-", status=418)
    refused(path)
    gone.times = 0
    assert "what came is not what the hub states" in refused(path)
    pulled(path)


def test_a_pull_that_broke_off_fetches_only_what_is_missing(server, at, tmp_path, models):
    path = write(tmp_path)
    looked_at = json.loads(invoke("pull", path, "--dry-run", "--json").stdout)["bytes_looked_at"]
    server.log.clear()
    server.fault(whole_file(models), after=300_000, times=1)
    gone = server.fault("bytes=300000-", status=418)
    assert "HTTP status 418" in refused(path)
    assert not (tmp_path / "own/recipes").exists()
    total = sum(map(len, models.values()))
    assert server.sent() == looked_at + total - len(models[BASE]) + 300_000
    gone.times = 0
    server.log.clear()
    pulled(path)
    assert server.sent() == len(models[BASE]) + len(models[BASE]) - 300_000  # the look, the rest
    assert (tmp_path / "own/recipes/family.toml").exists()


def test_a_recipe_has_its_bases_name_if_it_is_given_none(server, at):
    models = ("--base", f"https://huggingface.co/{BASE}", "--tuned", TUNED, "--reference")
    assert "next: edge-eft chat big-base\n" in pulled(*models, REFERENCE)
    assert "big-base was here already" in pulled(*models, REFERENCE)
    assert "with --name, or remove it first" in refused(*models, TUNED)


def stopped(server, models, *arguments):
    """Let a pull of three repositories end when 300,000 bytes of the base have come."""
    server.fault(whole_file(models), after=300_000, times=1)
    gone = server.fault("bytes=300000-", status=418)
    refused(*arguments)
    gone.times = 0


def test_a_stopped_pull_goes_on_by_its_name(server, at, models):
    stopped(server, models, *trio())
    assert load_recipe(next(at.parent.glob("own/unfinished/*"))).name == "mine"
    assert "its pull has not ended; edge-eft pull mine goes on" in complaint("chat", "mine")
    told = invoke("list").stderr
    assert "the pull of mine has not ended; edge-eft pull mine goes on with it" in told
    pulled("Mine")
    assert server.log[-1].range == f"bytes=300000-{len(models[BASE]) - 1}"
    assert load_recipe("mine").base.file.read_bytes() == models[BASE]
    assert "not ended" not in invoke("list").stderr


def test_a_stopped_pull_is_undone_by_remove(server, at, models):
    stopped(server, models, *trio())
    here = sum(len(data) for repo, data in models.items() if repo != BASE) + 300_000
    about = json.loads(invoke("remove", "MINE", "--yes", "--json").stdout)
    assert (about["removed"], about["freed"]) == (["mine"], here)
    assert not list(at.glob("models--*"))
    assert "not known" in complaint("remove", "mine", "--yes")
    assert "not ended" not in invoke("list").stderr


def test_a_stopped_pull_is_known_after_another_of_its_name(server, at, models):
    stopped(server, models, *trio())
    server.add(BASE, {"Big-Base.Q5_0.gguf": models[BASE][:-1] + b"5"})
    pulled(*trio(base=f"{BASE}:Q5_0"))
    assert "the pull of mine.2 has not ended" in invoke("list").stderr
    server.fault("bytes=300000-", status=418, times=1)
    refused("mine.2")
    pulled("mine.2")
    assert server.log[-1].range == f"bytes=300000-{len(models[BASE]) - 1}"
    assert load_recipe("mine.2").base.source.file == FILES[BASE]
    assert invoke("verify", "mine").exit_code == 0
    assert "not ended" not in invoke("list").stderr


def test_what_others_need_of_a_stopped_pull_stays(server, at, models):
    stopped(server, models, *trio())
    server.add(BASE, {"Big-Base.Q5_0.gguf": models[BASE][:-1] + b"5"})
    pulled(*trio(base=f"{BASE}:Q5_0", name="other"))
    server.fault("bytes=300000-", status=418)
    refused(*trio(base=f"{BASE}:Q8_0", name="third"))
    about = json.loads(invoke("remove", "mine", "--yes", "--json").stdout)
    assert about["freed"] == 0
    assert {each["why"] for each in about["kept"]} == {"other needs it"}
    about = json.loads(invoke("remove", "third", "--yes", "--json").stdout)
    assert about["freed"] == 300_000
    assert invoke("verify", "other").exit_code == 0


def test_three_repositories_make_a_recipe(server, at, tmp_path):
    server.add(
        BASE,
        {
            "Big-Base.Q4_K_M.gguf": server.repos[BASE].commits[server.repos[BASE].head][
                FILES[BASE]
            ][:-1]
            + b"4"
        },
    )
    err = pulled(*trio(), "--format", "template")
    assert f"base: Big-Base.Q4_K_M.gguf of {BASE}, Q4_K_M is taken" in err
    recipe = load_recipe("mine")
    assert recipe.license == "apache-2.0"
    assert (recipe.base.prompt, recipe.deltas["tuned"].tuned.prompt) == ("template", "template")
    again = pulled(*trio(base=f"{BASE}:q4_k_m"), "--format", "template")
    assert "here already" in again
    assert "its base is another model" in refused(*trio(base=f"{BASE}:Q8_0"))
    pulled("mine", "--base", ":Q8_0", "--name", "exact")
    assert load_recipe("exact").base.source.file == FILES[BASE]
    assert load_recipe("mine").base.source.file == "Big-Base.Q4_K_M.gguf"


def test_a_changed_recipe_keeps_its_pins(server, at, tmp_path, models):
    path = write(tmp_path)
    pulled(path)
    pinned = load_recipe("family").base.source
    server.add(BASE, {FILES[BASE]: models[BASE][:-1] + b"n"})
    path.write_text(path.read_text().replace("n_ctx = 128", "n_ctx = 64"))
    pulled(path)
    assert (load_recipe("family").n_ctx, load_recipe("family").base.source) == (64, pinned)
    pulled(*trio(), "--format", "chatml")
    pulled(*trio(), "--format", "template")
    assert load_recipe("mine").base.prompt == "template"


def test_what_was_damaged_counts_as_fetched(server, at, tmp_path, models):
    pulled(write(tmp_path))
    load_recipe("family").base.file.resolve().write_bytes(models[BASE][:-1] + b"?")
    assert "808 kB were fetched" in pulled("family")
    load_recipe("family").base.file.resolve().write_bytes(models[BASE][:-1] + b"?")
    about = json.loads(invoke("pull", "family", "--json", "--quiet").stdout)
    assert about["bytes_fetched"] == len(models[BASE])


def test_a_cut_file_is_to_be_fetched_and_not_taken_for_another(server, at, tmp_path, models):
    pulled(write(tmp_path))
    blob = load_recipe("family").base.file.resolve()
    blob.write_bytes(models[BASE][:500_000])
    about = json.loads(invoke("pull", "family", "--dry-run", "--json").stdout)
    assert about["bytes_to_fetch"] == len(models[BASE])
    assert f"{FILES[BASE]}  damaged here\n" in invoke("pull", "family", "--dry-run").stdout
    server.fault("", status=503)
    line = refused("family")
    assert f"your copy is damaged (it has 500,000 bytes of {len(models[BASE]):,})" in line
    assert "has trouble of its own" in line
    assert "--update" not in line
    assert blob.stat().st_size == 500_000


def test_a_cut_file_is_fetched_whole(server, at, tmp_path, models):
    pulled(write(tmp_path))
    blob = load_recipe("family").base.file.resolve()
    blob.write_bytes(models[BASE][:500_000])
    told = pulled("family")
    assert "damaged; it is fetched again" in told
    assert f"{byte_size(len(models[BASE]))} were fetched" in told
    assert blob.read_bytes() == models[BASE]


def test_a_damaged_file_stays_while_the_hub_sends_no_other(server, at, tmp_path, models):
    pulled(write(tmp_path))
    blob = load_recipe("family").base.file.resolve()
    blob.write_bytes(models[BASE][:-1] + b"?")
    server.fault("", status=503)
    assert "until then the damaged copy stays" in refused("family")
    assert blob.stat().st_size == len(models[BASE])


@pytest.mark.parametrize("damage", [lambda data: data[:-1000], lambda data: data[:-1] + b"?"])
def test_a_damaged_file_is_told_with_the_command_that_mends_it(server, at, tmp_path, damage):
    pulled(write(tmp_path))
    blob = load_recipe("family").base.file.resolve()
    blob.write_bytes(damage(blob.read_bytes()))
    assert "; edge-eft pull family mends it" in complaint("run", "family", "the red one")
    assert "; edge-eft pull family mends it" in complaint("show", "family")


def test_a_cache_that_cannot_be_written_is_used(server, at, tmp_path, models, monkeypatch):
    pulled(write(tmp_path))
    before = {path: path.lstat().st_mtime_ns for path in at.rglob("*")}
    shutil.rmtree(at / ".locks")
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(at)))
    for options in ((), ("--name", "other")):
        assert "here" in pulled(tmp_path / "family.toml", *options)
    after = {path: path.lstat().st_mtime_ns for path in at.rglob("*")}
    assert after.keys() < before.keys()
    load_recipe("family").base.file.resolve().write_bytes(models[BASE][:-1] + b"?")
    assert "is damaged, and the cache cannot be written; HF_HOME names" in refused("family")


def test_a_place_for_recipes_that_cannot_be_written_is_said_before(server, at, tmp_path):
    (tmp_path / "own").write_text("")
    assert "own: cannot be written, and the recipe is to go there" in refused(write(tmp_path))
    assert not at.exists()


@posix
def test_a_pipe_in_the_cache_is_not_waited_for(server, at, tmp_path, models):
    pulled(write(tmp_path))
    blob = load_recipe("family").base.file.resolve()
    blob.unlink()
    for name in (blob.name, f"{blob.name}.incomplete"):
        os.mkfifo(blob.with_name(name))
    pulled("family")
    assert blob.read_bytes() == models[BASE]


def test_a_recipe_whose_file_was_renamed_is_pulled_under_its_new_name(server, at, tmp_path):
    pulled(write(tmp_path))
    own = tmp_path / "own/recipes"
    (own / "family.toml").rename(own / "ours.toml")
    assert "next: edge-eft chat ours" in pulled("ours")
    pulled("ours", "--update")
    assert [path.name for path in own.iterdir()] == ["ours.toml"]


def test_a_name_in_other_letters_is_the_one_that_is_there(server, at, tmp_path):
    pulled(*trio())
    assert "next: edge-eft chat mine" in pulled(*trio(name="MINE"))
    pulled(*trio(name="MINE"), "--update")
    assert [path.name for path in (tmp_path / "own/recipes").iterdir()] == ["mine.toml"]
    assert load_recipe("mine").name == "mine"


def test_a_file_that_is_removed_while_others_come_is_told(
    server, at, tmp_path, monkeypatch, models
):
    pulled(*trio())
    other = load_recipe("mine").deltas["tuned"].tuned.file
    server.add(BASE, {"Big-Base.Q5_0.gguf": models[BASE][:-1] + b"5"})
    fetch = hub_transfer.fetch

    def slow(repository, file, *rest):
        if "Q5_0" in file.path:
            other.unlink()
        return fetch(repository, file, *rest)

    monkeypatch.setattr(hub_transfer, "fetch", slow)
    line = refused(*trio(base=f"{BASE}:Q5_0", name="other"))
    assert "was removed while the rest came; pull again" in line
    assert [path.name for path in (tmp_path / "own/recipes").iterdir()] == ["mine.toml"]


def test_what_a_pull_needs_stays_while_another_recipe_is_removed(
    server, at, tmp_path, monkeypatch, models
):
    server.add(BASE, {"Big-Base.Q5_0.gguf": models[BASE][:-1] + b"5"})
    pulled(*trio(base=f"{BASE}:Q8_0"), "--name", "first")
    fetch = hub_transfer.fetch

    def slow(repository, file, *rest):
        if "Q5_0" in file.path:
            assert invoke("remove", "first", "--yes").exit_code == 0
        return fetch(repository, file, *rest)

    monkeypatch.setattr(hub_transfer, "fetch", slow)
    pulled(*trio(base=f"{BASE}:Q5_0"))
    assert invoke("verify", "mine").exit_code == 0


def test_a_link_in_the_cache_to_something_else_is_put_right(server, at, tmp_path, models):
    pulled(write(tmp_path))
    file = load_recipe("family").base.file
    other = load_recipe("family").deltas["chat"].tuned.file
    file.unlink()
    file.symlink_to(other.resolve())
    pulled("family")
    assert file.read_bytes() == models[BASE]


def test_a_dry_run_tells_and_writes_nothing(server, at, tmp_path):
    result = invoke("pull", write(tmp_path), "--dry-run")
    assert result.exit_code == 0
    assert f"{BASE}/{FILES[BASE]}" in result.stdout
    assert not at.exists()
    assert not (tmp_path / "own").exists()


def test_json_is_data_and_quiet_is_quiet(server, at, tmp_path):
    result = invoke("pull", write(tmp_path), "--json", "--quiet")
    about = json.loads(result.stdout)
    assert (about["name"], result.stderr) == ("family", "")
    assert about["bytes_fetched"] == sum(model["bytes"] for model in about["models"])
    assert unseen_keys("pull", about) == {"bytes_to_fetch"}


def test_quiet_is_a_default_and_a_dry_run_is_data_all_the_same(server, at, tmp_path, monkeypatch):
    path = write(tmp_path)
    shown = invoke("pull", path, "--dry-run").stdout
    monkeypatch.setenv("EDGE_EFT_QUIET", "1")
    result = invoke("pull", path, "--dry-run")
    assert (result.stdout, result.stderr) == (shown, "")


def test_a_trio_that_cannot_work_is_refused_by_its_headers(server, at, tmp_path, folder):
    other = tiny_models.write_random(folder / "hub-other.gguf", seed=9, rename={300: ("zzz", 1)})
    server.add(BASE, {FILES[BASE]: other.read_bytes() + bytes(32 << 20)})
    assert "different vocabularies: token 300" in refused(write(tmp_path))
    assert server.sent("Big") < 2 << 20
    assert not at.exists()


@pytest.mark.parametrize("data", [b"<html>" * 99, None], ids=["no GGUF", "cut"])
def test_what_is_no_model_is_refused_by_its_header(server, at, tmp_path, models, data):
    server.add(BASE, {FILES[BASE]: data or models[BASE][:-1000]})
    assert f"{BASE}/{FILES[BASE]}: " in refused(write(tmp_path))
    assert not at.exists()


def test_another_file_than_stated_is_refused_and_update_takes_it(server, at, tmp_path, models):
    size, sha = len(models[BASE]) - 1, "0" * 64
    line = refused(write(tmp_path, base=f'size = {size}, confidence = "exact"'))
    assert "not the one this recipe was made for" in line
    assert f"has {size + 1:,} bytes, stated are {size:,}" in line
    pulled(write(tmp_path, "rough", base=f'size = {size}, confidence = "named"'))
    path = write(tmp_path, "hashed")
    path.write_text(path.read_text().replace("[base]", f'[base]\nsha256 = "{sha}"'))
    assert "its sha256 is" in refused(path)
    pulled(path, "--update")
    assert load_recipe("hashed").base.sha256 == server.sha256(models[BASE])


def test_a_pinned_revision_is_kept_until_update(server, at, tmp_path, models):
    pulled(write(tmp_path))
    newer = models[BASE][:-1] + b"n"
    server.add(BASE, {FILES[BASE]: newer})
    assert "here already" in pulled("family")
    pulled("family", "--update")
    assert load_recipe("family").base.file.read_bytes() == newer


def test_a_guessed_name_stands_for_its_quantisation(server, at, tmp_path):
    path = write(tmp_path, base='confidence = "guessed"')
    path.write_text(path.read_text().replace("Big-Base.Q8_0", "Huge-Base-Q8_0"))
    assert f"base: {FILES[BASE]} of {BASE}, Q8_0 is taken" in pulled(path)
    assert "here already" in pulled(path)
    path.write_text(path.read_text().replace("Huge-Base-Q8_0", "Huge-Base-Q2_K"))
    assert f"name one of its files: {FILES[BASE]}" in refused(path, "--name", "other")


def test_what_does_not_fit_is_refused_with_a_smaller_choice(
    server, at, tmp_path, models, monkeypatch
):
    server.add(BASE, {"Big-Base.Q2_K.gguf": b"GGUF"})
    need = json.loads(invoke("pull", write(tmp_path), "--dry-run", "--json").stdout)["memory_total"]
    memory = psutil.virtual_memory()._replace(available=need - 1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    line = refused(tmp_path / "family.toml")
    assert "(--base :Q2_K)" in line
    assert "--anyway" in line
    assert not at.exists()
    assert "would fit" in pulled(tmp_path / "family.toml", "--anyway")
    assert "MiB are free" in pulled("family")


def test_a_disk_that_is_too_small_is_seen_before(server, at, tmp_path, models, monkeypatch):
    need = sum(map(len, models.values()))
    usage = shutil.disk_usage(tmp_path)._replace(free=need - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert " are still to come" in refused(write(tmp_path))
    assert not at.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=need))
    pulled(tmp_path / "family.toml")


def test_a_gated_repository_is_explained_before_anything_comes(server, at, tmp_path):
    server.repos[TUNED].gated = True
    line = refused(write(tmp_path))
    assert f"{TUNED} is gated: accept its licence on {server.address()}/{TUNED}" in line
    assert not at.exists()


@pytest.mark.parametrize(
    ("siblings", "words"),
    [
        ([{"rfilename": "../../../../evil.gguf"}], "no GGUF model"),
        ([{"rfilename": "/tmp/evil.gguf"}, {"rfilename": "NUL.gguf"}], "no GGUF model"),
        ([{"rfilename": "a\\..\\evil.gguf"}, {"rfilename": "C:evil.gguf"}], "no GGUF model"),
        ([{"rfilename": "x.gguf", "lfs": {"sha256": "../../evil"}}], "no GGUF model"),
        ([{"rfilename": "x\u001b[2J.gguf"}], "no GGUF model"),
        ([{"rfilename": 7}], "not the hub's|no GGUF model"),
    ],
)
def test_hostile_names_from_the_hub_are_not_taken(server, at, tmp_path, siblings, words):
    def hostile(info):
        good = info["siblings"][0]
        info["siblings"] = [
            good | each | {"lfs": good["lfs"] | each.get("lfs", {})} for each in siblings
        ]
        return info

    server.repos[BASE].lie = hostile
    before = sorted(tmp_path.rglob("*"))
    options = trio()
    line = refused(*options)
    assert any(word in line for word in words.split("|"))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("commit", ["../../../evil", "/etc", "main", "A" * 40, 7, None])
def test_a_hostile_commit_is_refused(server, at, tmp_path, commit):
    server.repos[BASE].lie = lambda info: info | {"sha": commit}
    assert "is not a commit" in refused(*trio())
    assert not at.exists()


def test_names_that_differ_in_case_alone_are_refused(server, at, tmp_path, models):
    files = {"M.gguf": models[TUNED], "m.gguf": models[REFERENCE]}
    server.add(TUNED, files)
    line = refused(*trio(tuned=f"{TUNED}:M.gguf", reference=f"{TUNED}:m.gguf"))
    assert "one name where case is ignored" in line
    assert not at.exists()


def test_a_split_model_comes_with_all_its_parts(server, at, tmp_path, models, folder):
    whole = folder / "hub-base.gguf"
    first = split_model(whole, folder, 3, "Big-Base-Q8_0")
    parts = {path.name: path.read_bytes() for path in part_paths(first)}
    repo = server.repos[BASE]
    repo.commits.clear()
    server.add(BASE, parts)
    pulled(*trio(base=f"{BASE}:Q8_0"))
    recipe = load_recipe("mine")
    assert len(recipe.base.sha256) == 3
    assert [path.read_bytes() for path in part_paths(recipe.base.file)] == list(parts.values())
    assert "here already" in pulled("mine")


def test_the_instruct_models_come_for_an_adapter(server, at, tmp_path, models):
    instruct = "maker/Big-Instruct-GGUF"
    server.add(instruct, {"Big-Instruct-Q8_0.gguf": models[BASE][:-1] + b"i"})
    path = write(tmp_path)
    source = f'source = {{ repo = "{instruct}", file = "Big-Instruct-Q8_0.gguf" }}'
    path.write_text(f"{path.read_text()}[instruct]\n{source}\n")
    assert "edge-eft chat family --lora ADAPTER" in pulled(path, "--for-lora")
    recipe = load_recipe("family")
    chat = recipe.deltas["chat"]
    needs = [spec.needs_pull for spec in (recipe.instruct, chat.tuned, recipe.base, chat.reference)]
    assert needs == [False, False, True, True]
    verified = invoke("verify", "family", "--json")
    assert (verified.exit_code, verified.stderr) == (0, "")
    checked = [(each["roles"], each["verdict"]) for each in json.loads(verified.stdout)]
    assert checked == [(["instruct"], "ok"), (["tuned:chat"], "ok")]
    assert "here for --lora" in invoke("list", "family").stdout
    shown = invoke("show", "family", "--full").stdout
    assert "here for  edge-eft chat family --lora ADAPTER\nthe rest  edge-eft pull" in shown
    assert shown.count("(as pulled)") == shown.count(" stated") == 2
    pulled("family")
    check_here(load_recipe("family"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Name a recipe"),
        (("--base", "a/b", "--tuned", "c/d", "--reference", "e/f"), "a/b is not on the hub"),
        (("x", "--tuned", "c/d"), "go without a recipe"),
        (("x", "--base", "c/d", "--for-lora"), "--for-lora fetches no base"),
        (("atlas",), "comes with edge_eft"),
        (("no-such-recipe",), "is not known"),
        (
            ("x/y-GGUF",),
            "three: edge-eft pull --base x/y-GGUF --tuned REPO --reference REPO --name NAME",
        ),
        (("hf.co/x/y:Q4_K_M",), "is a repository of one model"),
        (("Qwen/Qwen3-8B-GGUF",), "of the catalogue: edge-eft pull qwen3-"),
        (("gone/family.toml",), "cannot be read"),
        (("",), "a path is empty"),
        (trio(name="../x"), "cannot be the name of a recipe"),
        (trio(name="nul"), "cannot be the name of a recipe"),
        (trio(name="atlas"), "comes with edge_eft"),
        (trio(name="qwen3-8b"), "is a recipe of the catalogue"),
        (trio(base="../b"), "not the name of a repository"),
        (trio(base="gone/away"), "is not on the hub, or is private"),
        (trio(base=f"{BASE}:../x.gguf"), "name one of its files"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(server, at, arguments, words):
    assert words in complaint("pull", *arguments)


@pytest.mark.parametrize(
    ("text", "found"),
    {
        "a/b": ("a/b", ""),
        "a/b:Q8_0": ("a/b", "Q8_0"),
        "a/b:sub/x.gguf": ("a/b", "sub/x.gguf"),
        "https://huggingface.co/a/b": ("a/b", ""),
        "hf.co/a/b:Q4_K_M": ("a/b", "Q4_K_M"),
        "https://huggingface.co/a/b/tree/main": ("a/b", ""),
        "https://huggingface.co/a/b/blob/main/s/x.gguf": ("a/b", "s/x.gguf"),
        "https://hf.co/a/b/resolve/main/x.gguf?download=true": ("a/b", "x.gguf"),
    }.items(),
)
def test_a_repository_is_named_as_people_do(text, found):
    asked = wish(text)
    assert (asked.repo, asked.file) == found


def test_a_recipe_of_files_has_nothing_to_pull(at, tmp_path):
    path = tmp_path / "local.toml"
    path.write_text(recipe_files.BASE + recipe_files.DELTA)
    assert "nothing to pull" in complaint("pull", path)


@posix
def test_a_terminal_is_shown_bytes_rate_and_time_left_and_no_noise(server, home):
    from helpers.pseudo_terminal import OnTerminal

    slowly(server)
    pull = OnTerminal("pull", write(home), environment=environment(server, home))
    assert pull.status() == 0
    assert pull.saw(r"family  [━╸╺]+  [\d.]+ [kM]B of [\d.]+ [kM]B · [\d.]+ [kM]B/s · \d+ s left")
    text = pull.text()
    assert not re.search("B/s|left|fetching|huggingface|HTTP|Warning", text)
    assert "to fetch" in text, "what was planned and what came of it stays"
    assert text.splitlines()[-1] == "next: edge-eft chat family"


def slowly(server, pause=0.02):
    """Let the files take a while."""
    server.fault("/store/", pause=pause)


@posix
def test_ctrl_c_keeps_what_came_and_says_so(server, home, models):
    path = write(home)
    server.fault(whole_file(models), pause=0.05)
    child = process("pull", path, env=environment(server, home))
    wait_for(lambda: any(each.stat().st_size for each in home.rglob("*Big*/*/*.incomplete")))
    child.send_signal(signal.SIGINT)  # to the supervisor, which hands it on once
    _, err = child.communicate(timeout=20)
    assert child.returncode == 130
    undo = "edge-eft remove family removes what came"
    assert f"B came; edge-eft pull family goes on from there, {undo}" in err
    (partial,) = home.rglob("*.incomplete")
    have = partial.stat().st_size
    server.faults.clear()
    server.log.clear()
    assert run(server, home, "family")[0] == 0
    assert not list((home / "own/unfinished").iterdir())
    assert server.log[-1].range == f"bytes={have}-{len(models[BASE]) - 1}"


@posix
def test_ctrl_c_while_headers_come_says_that_nothing_was_fetched(server, home):
    server.fault("/store/", pause=1)
    child = process("pull", write(home), env=environment(server, home))
    wait_for(lambda: any("/store/" in asked.path for asked in server.log))
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (130, "edge-eft: stopped; nothing was fetched yet\n")
    assert not (home / "own").exists()


@posix
def test_a_full_disk_is_one_line_and_what_came_stays(server, at, tmp_path, models):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limits[1]))
    try:
        line = refused(write(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written (File too large); what has come stays" in line
    assert next(at.rglob("*.incomplete")).stat().st_size == 400_000
    pulled(tmp_path / "family.toml")
    assert server.log[-1].range == f"bytes=400000-{len(models[BASE]) - 1}"


def test_offline_without_the_files_is_one_line(server, at, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in complaint("pull", write(tmp_path))
    assert not server.log


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"HF_HUB_DOWNLOAD_TIMEOUT": "soon"}, "refuses its environment"),
        ({"HF_ENDPOINT": "http://127.0.0.1:1"}, "cannot be reached"),
        ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "the proxy is of a kind that is not installed"),
        ({"HTTP_PROXY": "http://127.0.0.1:1", "HF_ENDPOINT": "http://hub.invalid"}, "be reached"),
    ],
)
def test_an_environment_that_is_wrong_is_one_line(server, home, more, words):
    status, _, err = run(server, home, write(home), **more)
    assert (status, len(err.splitlines())) == (2, 1), err
    assert words in err


@posix
@pytest.mark.parametrize("lacking", ["HF_HOME", "EDGE_EFT_HOME"])
def test_without_a_home_nothing_is_put_anywhere(server, home, lacking):
    """In a container a user may have neither $HOME nor an entry in passwd."""
    (home / "sitecustomize.py").write_text(_NO_HOME)
    path = os.pathsep.join((str(home), str(Path(edge_eft.__file__).parents[1])))
    known = environment(server, home, PYTHONPATH=path)
    for name in (lacking, "HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        known.pop(name, None)
    child = process("pull", write(home), env=known, cwd=home)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "no home directory is known" in err.splitlines()[-1]
    assert f"; {lacking} names" in err
    assert not list(home.rglob("*.incomplete")) + list(home.glob("~"))


def test_files_of_another_program_in_the_cache_are_used_offline(server, at, tmp_path, monkeypatch):
    """As `hf download` leaves them: with the branch's name in refs."""
    for repo, file in FILES.items():
        huggingface_hub.hf_hub_download(repo, file, cache_dir=at)
    server.log.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "the hub does not answer; the cache has it" in pulled(write(tmp_path))
    assert not server.log


def whole(server, home):
    """Check that what claims to be whole is; returns whether the recipe is there."""
    known = {
        server.sha256(data)
        for repo in server.repos.values()
        for data in repo.commits[repo.head].values()
    }
    for path in home.rglob("*.gguf"):
        assert server.sha256(path.read_bytes()) in known, path
    for blob in home.glob("hf/hub/models--*/blobs/*"):
        if blob.suffix != ".incomplete":
            assert server.sha256(blob.read_bytes()) == blob.name
    recipes = list(home.glob("own/recipes/*.toml"))
    for recipe in recipes:
        found = read_recipe(recipe)
        verify(found, all_sizes=True)
        assert all(spec.file.is_file() for spec in found.roles().values())
    return bool(recipes)


def came(home):
    """How many bytes of files are in the cache, whole or not."""
    return sum(blob.stat().st_size for blob in home.glob("hf/hub/models--*/blobs/*"))


@posix
@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_nothing_that_claims_to_be_whole(server, home, models):
    moments = int(os.environ.get("EDGE_EFT_TEST_MOMENTS", "12"))
    dice, path, have = random.Random(moments), write(home), 0
    ends = "|".join(str(len(data) - 1) for data in models.values())
    server.fault(f"/store/.*-({ends})$", pause=0.02)
    states = Counter()
    for _ in range(moments):
        child = process("pull", path, env=environment(server, home), start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(dice.uniform(0.3, 3.5))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        complete = whole(server, home)
        assert came(home) >= have, "what came was thrown away"
        have = came(home)
        states["pulled" if complete else "in a file" if have else "before"] += 1
        if complete:
            have = 0
            for folder in ("own", "hf"):
                shutil.rmtree(home / folder)
    server.faults.clear()
    assert run(server, home, path)[0] == 0
    assert whole(server, home)
    print(f"{moments} moments: {dict(states)}")
