"""`edge-eft pull` against a stand-in of the hub: what comes, what is refused before, what stays."""

import json
import os
from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.cli_tools import process
from helpers.hub_server import HubServer

from edge_eft.files.hub_file import HubFile
from edge_eft.files.recipe_names import load_recipe

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
    return tmp_path


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


def refused(server, home, *arguments, **more):
    """The last line on stderr of a pull that must fail."""
    status, _, err = run(server, home, *arguments, **more)
    assert status == 2, err
    assert err.splitlines()[-1].startswith("edge-eft: ")
    return err.splitlines()[-1]


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
        "run", "family", "the red one", "--max-tokens", "4", env=environment(server, home)
    )
    out, err = child.communicate(timeout=60)
    assert (child.returncode, bool(out)) == (0, True), err
