"""Recipes for the command line, and emulators that say what a test wrote down."""

from types import SimpleNamespace

import psutil
import pytest
from helpers.fakes import BatchEmulator
from helpers.hub_cache import pulled_spec, recipe_of
from helpers.recipe_files import write_recipe

import edge_eft.evaluate.gap  # before `scripted` patches what it imports  # noqa: F401
from edge_eft.files import recipe_names
from edge_eft.files.recipe_names import save_recipe


@pytest.fixture
def recipe(tmp_path):
    """A recipe whose files nobody opens."""
    return write_recipe(tmp_path / "family.toml", tmp_path / "none.gguf")


@pytest.fixture
def scripted(monkeypatch):
    """Make the command line load an emulator with scripted replies."""

    def use(*replies, **options):
        emulator = BatchEmulator(*replies, **options)
        monkeypatch.setattr("edge_eft.engine.emulator.Emulator", emulator.load)
        monkeypatch.setattr("edge_eft.evaluate.gap.Emulator", emulator.load)
        return emulator

    return use


@pytest.fixture(scope="session")
def small(tmp_path_factory, smollm2_trio):
    """A recipe that has SmolLM2-135M in every role."""
    base, tuned, _ = smollm2_trio
    return write_recipe(tmp_path_factory.mktemp("smol") / "smol.toml", base, tuned=tuned)


CATALOGUE = """
description = "Large, led by small"
license = "Apache-2.0"
n_ctx = 4096

[base]
source = {{ repo = "o/large-{size}b-GGUF", file = "Large-{size}B.{kind}.gguf", size = {bytes}, \
gated = {gated}, confidence = "named" }}

[delta.chat]
tuned = {{ source = {{ repo = "o/tuned", file = "m.Q8_0.gguf", size = 600_000_000 }} }}
reference = {{ source = {{ repo = "o/reference", file = "m.Q8_0.gguf", size = 600_000_000 }} }}

[instruct]
source = {{ repo = "o/large-it-GGUF", file = "Large-it.Q8_0.gguf", gated = true }}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch, tiny):
    """A package with an embedded recipe and three in the catalogue; nothing is the user's own."""
    package = tmp_path / "site" / "edge_eft"
    models = package / "models"
    (models / "catalogue").mkdir(parents=True)
    write_recipe(models / "family.toml", tiny.base, tuned=tiny.tuned)
    for size, kind, n_bytes, gated in (
        (4, "Q8_0", 4_000_000_000, "false"),
        (8, "Q4_K_M", 5_000_000_000, "true"),
        (700, "Q4_0", 400_000_000_000, "false"),
    ):
        text = CATALOGUE.format(size=size, kind=kind, bytes=n_bytes, gated=gated)
        (models / "catalogue" / f"large-{size}b.toml").write_text(text)
    monkeypatch.setattr(recipe_names, "__file__", str(package / "files" / "recipe_names.py"))
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    memory = SimpleNamespace(available=8 << 30, total=16 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    return models


@pytest.fixture
def pull(tmp_path, tiny):
    """Do what a pull does, of the family `tiny`: files into a cache, and a recipe of them."""

    def pulled(name, **repos):
        specs = {
            role: pulled_spec(
                tmp_path / "hub", repos.get(role, f"o/{role}"), getattr(tiny, role).read_bytes()
            )
            for role in ("base", "tuned", "reference")
        }
        return save_recipe(recipe_of(name, **specs))

    return pulled


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The directory of kept conversations, empty."""
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "sessions").mkdir(parents=True)
    return tmp_path / "home" / "sessions"
