"""Recipes for the command line, and emulators that say what a test wrote down."""

import pytest
from helpers.fakes import BatchEmulator
from helpers.recipe_files import write_recipe

import edge_eft.evaluate.gap  # before `scripted` patches what it imports  # noqa: F401


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
