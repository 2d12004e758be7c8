"""machine_checks: what is said of memory, its speed, disks, and of a recipe on this machine."""

import os
import shutil
import sys
import types
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import psutil
import pytest
from helpers.recipe_files import write_recipe

from edge_eft.cli import machine_checks
from edge_eft.cli.finding import NOTE, OK, WARNING
from edge_eft.files.gguf_check import GGUFHeader
from edge_eft.files.gguf_header import TensorInfo
from edge_eft.files.recipe import HubFile, ModelSpec, from_files
from edge_eft.files.recipe_names import load_recipe


def header(tensors, **metadata):
    return GGUFHeader(
        path=Path("x"),
        file_size=0,
        version=3,
        architecture="llama",
        metadata={f"llama.{key}": value for key, value in metadata.items()},
        tensors=tuple(TensorInfo(n, (1,), "F32", 0, size) for n, size in tensors.items()),
        parts=(),
        data_starts=(),
    )


# -- what a token reads --------------------------------------------------------------------


def test_a_table_of_embeddings_is_read_wholly_only_as_the_output():
    tied = {"token_embd.weight": 100, "blk.0.ffn_up.weight": 7}
    assert machine_checks.bytes_read(header(tied)) == 107
    assert machine_checks.bytes_read(header({**tied, "output.weight": 50})) == 57


def test_of_a_mixture_the_experts_in_use_are_read():
    tensors = {"blk.0.attn_q.weight": 10, "blk.0.ffn_up_exps.weight": 800}
    assert machine_checks.bytes_read(header(tensors, expert_count=16, expert_used_count=2)) == 110


def test_a_count_that_is_no_number_is_passed_over():
    assert machine_checks.bytes_read(header({"blk.0.ffn_up.weight": 7}, expert_count="many")) == 7


def test_bandwidth_bounds_the_tokens_per_second(tiny, monkeypatch):
    monkeypatch.setattr(machine_checks, "IN_CACHE", 0)
    recipe = from_files(*tiny[:3])
    finding = machine_checks.recipe_speed(recipe, 1e9, has_gpu=False)
    sizes = finding.data["bytes_per_token"]
    assert list(sizes) == ["base", "tuned:tuned", "reference:tuned"]
    assert finding.data["base_tps"] == pytest.approx(1e9 / sizes["base"])
    assert finding.data["plain_tps"] == pytest.approx(1e9 / sum(sizes.values()))
    assert "at most" in finding.value
    on_gpu = machine_checks.recipe_speed(recipe, 1e9, has_gpu=True)
    assert on_gpu.value.endswith("if the CPU did it all")


def test_a_delta_of_weight_0_costs_nothing(tiny, tmp_path):
    recipe = load_recipe(write_recipe(tmp_path / "r.toml", tiny.base, tuned=tiny.tuned))
    finding = machine_checks.recipe_speed(recipe, 1e9, has_gpu=False)
    assert list(finding.data["bytes_per_token"]) == ["base", "tuned:chat", "reference:chat"]


def test_models_that_fit_into_caches_get_no_bound(tiny):
    finding = machine_checks.recipe_speed(from_files(*tiny[:3]), 1e9, has_gpu=False)
    assert "may stay in caches" in finding.value
    assert "base_tps" not in finding.data


@pytest.mark.parametrize("size", [None, 8_000_000_000])
def test_of_a_recipe_that_is_not_pulled_the_files_sizes_count(size, tiny):
    there = HubFile("owner/large", "large.gguf", size=size)
    recipe = from_files(*tiny[:3])
    recipe = replace(recipe, base=ModelSpec(Path("large.gguf"), source=there))
    finding = machine_checks.recipe_speed(recipe, 16e9, has_gpu=False)
    assert finding.verdict == OK
    if size is None:
        assert "unknown size" in finding.value
    else:
        assert "not pulled yet" in finding.value
        assert "at most 2.0 tokens/s of the base alone" in finding.value


def test_a_recipe_whose_files_are_missing_is_a_warning(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path / "r.toml", tmp_path / "none.gguf"))
    finding = machine_checks.recipe_speed(recipe, 1e9, has_gpu=False)
    assert finding.verdict == WARNING
    assert str(tmp_path) not in finding.value
    assert "none.gguf" in finding.value


# -- speed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 3])
def test_memory_is_read_within_its_time(n_threads):
    begun = perf_counter()
    rate = machine_checks.read_rate(n_threads, 1 << 22, budget=0.1)
    assert 1e8 < rate < 1e13
    assert perf_counter() - begun < 5


def test_where_memory_is_short_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1 << 20, total=1 << 30)
    )
    assert machine_checks.bandwidth(1).verdict == NOTE


def test_without_numpy_the_measurement_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    finding = machine_checks.bandwidth(1)
    assert finding.verdict == WARNING
    assert "numpy" in finding.value


# -- threads, memory, disks ----------------------------------------------------------------

STEPS = {"threads": [4, "physical cores"]}


def test_a_containers_share_of_the_processor_is_told(monkeypatch):
    monkeypatch.setattr(machine_checks, "container_limits", lambda: (None, 2.0))
    finding = machine_checks.threads(STEPS)
    assert finding.verdict == NOTE
    assert "--threads 2" in finding.advice


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="no load here")
def test_a_busy_machine_is_told(monkeypatch):
    monkeypatch.setattr(machine_checks, "container_limits", lambda: (None, None))
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0, 0))
    assert machine_checks.threads(STEPS).verdict == NOTE
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0, 0))
    assert machine_checks.threads(STEPS).verdict == OK


def test_threads_are_not_known_without_llama_cpp():
    assert "not known" in machine_checks.threads({}).value


def test_a_containers_memory_and_a_full_swap_are_told(monkeypatch):
    swap = types.SimpleNamespace(used=0, total=1 << 33)
    monkeypatch.setattr(psutil, "swap_memory", lambda: swap)
    monkeypatch.setattr(machine_checks, "container_limits", lambda: (1 << 28, None))
    assert "a container leaves 256 MiB" in machine_checks.memory().value
    monkeypatch.setattr(machine_checks, "container_limits", lambda: (None, None))
    assert machine_checks.memory().verdict == OK
    swap.used = 1 << 50
    assert "swapped out" in machine_checks.memory().advice


def test_places_on_one_disk_are_one_line(monkeypatch, tmp_path):
    for name in ("HF_HUB_CACHE", "EDGE_EFT_HOME", "EDGE_EFT_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "not" / "yet" / name))
    (finding,) = machine_checks.disks()
    assert finding.data["places"] == ["hub cache", "recipes", "cache"]
    assert str(tmp_path) not in finding.value
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30))
    (finding,) = machine_checks.disks()
    assert finding.verdict == NOTE


def test_a_place_without_a_home_is_a_warning(monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", "~nobody-here/x")
    assert WARNING in {finding.verdict for finding in machine_checks.disks()}


# -- the hub, the environment --------------------------------------------------------------


def test_the_hub_is_asked_only_with_online(monkeypatch):
    monkeypatch.setitem(sys.modules, "edge_eft.files.hub", None)
    assert machine_checks.hub(online=False).value == "not asked; --online asks it"


def test_what_the_hub_says_is_shown(monkeypatch):
    fake = types.SimpleNamespace(reachable=lambda: (True, "https://huggingface.co answers"))
    monkeypatch.setitem(sys.modules, "edge_eft.files.hub", fake)
    assert machine_checks.hub(online=True).value == "https://huggingface.co answers"
    fake.reachable = lambda: (False, "no network")
    assert machine_checks.hub(online=True).verdict == WARNING


def test_what_to_do_without_a_network_is_said_once(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    finding = machine_checks.hub(online=True)
    assert finding.verdict == WARNING
    assert f"{finding.value} {finding.advice}".count("HF_ENDPOINT") == 1


def test_a_broken_huggingface_hub_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "edge_eft.files.hub", None)
    assert machine_checks.hub(online=True).verdict == WARNING


def test_variables_are_named_without_their_values(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://anna:pw@proxy")
    finding = machine_checks.environment()
    assert {"HF_TOKEN", "HTTPS_PROXY"} <= set(finding.data["names"])
    assert "secret" not in repr(finding)
    assert "anna" not in repr(finding)
