"""A pair to convert, and a text to measure on."""

from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.convert_tools import TEXT
from helpers.hugging_face import write_models

from edge_eft.convert.scripts import find_scripts


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return (reference, tuned): unquantised, of the same shapes."""
    folder = tmp_path_factory.mktemp("pair")
    return tuple(
        tiny_models.write_random(folder / f"{name}.gguf", seed=seed, quantised=False)
        for name, seed in (("reference", 1), ("tuned", 2))
    )


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the Hugging Face directories of `helpers.hugging_face`."""
    for module in ("torch", "transformers", "sentencepiece", "peft"):
        pytest.importorskip(module)
    return write_models(tmp_path_factory.mktemp("hf"))


@pytest.fixture(scope="session")
def scripts() -> Path:
    """llama.cpp's conversion scripts."""
    return find_scripts(None)
