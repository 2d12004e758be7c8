"""A pair to convert, and a text to measure on."""

from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.convert_tools import TEXT


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
