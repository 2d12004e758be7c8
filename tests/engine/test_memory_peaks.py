"""The estimate against the most resident memory that a child process really had, slots filled.

A whole table, or part of it, for a person: `python -m helpers.memory_peak` (see there).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.families import Family, twin

import edge_eft

sys.path.insert(0, str(Path(edge_eft.__file__).resolve().parents[1] / "tools" / "lab"))

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc says what the peak was")
TESTS = Path(__file__).parents[1]
SIZES = [(n_ctx, n_slots) for n_ctx in (512, 4096, 8192) for n_slots in (1, 4)]


def sizes(*few: tuple[int, int]) -> pytest.MarkDecorator:
    """The sizes to measure: all of them takes half an hour."""
    chosen = SIZES if os.environ.get("EDGE_EFT_TEST_PEAKS") else few
    return pytest.mark.parametrize(("n_ctx", "n_slots"), chosen)


def ratio(files: tuple[Path, ...], n_ctx: int, n_slots: int) -> float:
    """Estimate / measured."""
    words = [sys.executable, "-m", "helpers.memory_peak", *map(str, files)]
    done = subprocess.run(
        [*words, str(n_ctx), str(n_slots)],
        capture_output=True,
        text=True,
        cwd=TESTS,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)
    return float(about["estimate"] / about["peak"])


@pytest.fixture(scope="module")
def large(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of 400 million parameters. Q8_0 is not rearranged by the CPU: pages are not twice."""
    from inflate import inflate

    path = tmp_path_factory.mktemp("large") / "large.gguf"
    inflate(smollm2_path, path, 400_000_000, "Q8_0")
    return path


@pytest.fixture(scope="module")
def small(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """SmolLM2 three times, in files of their own: three sets of weights."""
    folder = tmp_path_factory.mktemp("small")
    base, reference = (Path(shutil.copy(smollm2_path, folder / f"{i}.gguf")) for i in range(2))
    return base, twin(smollm2_path, folder), reference


@ON_LINUX
@pytest.mark.slow
@sizes((512, 1), (4096, 4), (8192, 1))
def test_atlas_takes_what_was_estimated(atlas: Family, n_ctx: int, n_slots: int) -> None:
    files = (atlas.base, atlas.tuned, atlas.reference)
    assert 1.0 <= ratio(files, n_ctx, n_slots) <= 1.15


@ON_LINUX
@pytest.mark.slow
@sizes((512, 4))
def test_a_published_trio_takes_what_was_estimated(
    small: tuple[Path, Path, Path], n_ctx: int, n_slots: int
) -> None:
    assert 1.0 <= ratio(small, n_ctx, n_slots) <= 1.15


@ON_LINUX
@pytest.mark.slow
@sizes((512, 1))
def test_a_large_base_takes_what_was_estimated(
    large: Path, small: tuple[Path, Path, Path], n_ctx: int, n_slots: int
) -> None:
    assert 1.0 <= ratio((large, *small[1:]), n_ctx, n_slots) <= 1.15
