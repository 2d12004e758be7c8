"""defaults: what is weighed before anything is loaded is what the loader opens."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers.tiny_models import write_random

from edge_eft import Emulator
from edge_eft.engine.defaults import default_memory, default_n_ctx
from edge_eft.files import memory
from edge_eft.files.recipe import from_files


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("defaults")
    paths = [folder / f"{name}.gguf" for name in ("base", "tuned", "reference")]
    for seed, path in enumerate(paths):
        write_random(path, seed=seed)
    return from_files(*paths)


def test_it_is_the_estimate_of_the_loader(recipe):
    roles = recipe.roles()
    headers = memory.headers(roles)
    with Emulator(recipe, n_gpu_layers=0) as emulator:
        record = emulator.record
    assert default_n_ctx(recipe.n_ctx, headers) == record.n_ctx
    assert default_memory(recipe.n_ctx, roles, headers) == record.memory


def test_a_stated_context_counts_up_to_what_was_trained(recipe):
    headers = memory.headers(recipe.roles())
    trained = min(header.n_ctx_train for header in headers.values())
    assert default_n_ctx(trained - 1, headers) == trained - 1
    assert default_n_ctx(trained + 1, headers) == trained


@pytest.mark.parametrize("module", ["cli.shelf", "cli.pull_plan", "engine.defaults"])
def test_llama_cpp_is_not_loaded_for_it(module):
    code = f"import sys, edge_eft.{module}; sys.exit('llama_cpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
