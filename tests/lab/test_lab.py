"""The laboratory: that its programs measure what they say, on models too small for the figures."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_models
from helpers.cli_tools import run_bench
from helpers.families import Family

import edge_eft
from edge_eft.backend import Context, Model
from edge_eft.errors import ModelFileError, RequestError
from edge_eft.files.gguf_check import read_header

sys.path.insert(0, str(Path(edge_eft.__file__).resolve().parents[1] / "tools" / "lab"))

import bench
from inflate import N_LAYERS, Inflation, check_type, inflate, largest_difference, parse_count

pytest.importorskip("gguf")

LAB = Path(bench.__file__).parent
CHECKOUT = LAB.parents[1]


# -- inflate -------------------------------------------------------------------------------


def is_reached(made: Inflation, wanted: int, d: int) -> bool:
    one_step = 3 * d * made.n_layers * 32
    return wanted <= made.n_parameters < wanted + one_step


@pytest.mark.parametrize("type_name", ["q8_0", "Q4_0", "f16"])
def test_an_inflated_model_gives_the_same_logits(tiny: Family, tmp_path: Path, type_name: str):
    target = tmp_path / "big.gguf"
    made = inflate(tiny.base, target, 3_000_000, type_name)
    header, own = read_header(target), read_header(tiny.base)
    assert made.n_parameters == header.n_parameters
    assert is_reached(made, 3_000_000, d=64)
    assert header.n_layer == made.n_layers == N_LAYERS
    assert header.quantisation == type_name.upper()
    assert largest_difference(tiny.base, target) == 0.0
    changed = {key for key in own.metadata if own.metadata[key] != header.metadata.get(key)}
    assert changed == {"llama.block_count", "llama.feed_forward_length"}
    models = [Model(path, vocab_only=True) for path in (tiny.base, target)]
    assert models[0].token_texts() == models[1].token_texts()


def test_blocks_through_an_inflated_model_give_the_same_logits(tiny: Family, tmp_path: Path):
    """Other kernels than for single tokens compute them."""
    inflate(tiny.base, tmp_path / "big.gguf", 2_000_000)
    tokens = np.array([1, 280, 300, 301, 302, 303, 304, 305, 306], np.int32)
    rows = []
    for path in (tiny.base, tmp_path / "big.gguf"):
        context = Context(Model(path), n_ctx=64, n_outputs=8)
        rows.append(context.advance({0: (tokens, 8)})[0].copy())
        context.close()
    assert np.array_equal(*rows)


@pytest.mark.slow
def test_a_published_model_keeps_its_logits_when_inflated(smollm2_path: Path, tmp_path: Path):
    made = inflate(smollm2_path, tmp_path / "big.gguf", 200_000_000)
    assert is_reached(made, 200_000_000, d=576)
    assert largest_difference(smollm2_path, made.path) <= 1e-4


def test_what_cannot_be_inflated_is_refused_before_anything_is_written(
    tiny: Family, tmp_path: Path
):
    with pytest.raises(RequestError, match=r"has 1\d\d,\d+ parameters and can be inflated to"):
        inflate(tiny.base, tmp_path / "x.gguf", 100_000)
    with pytest.raises(RequestError, match=r"'q4_k_m'; it must be one of Q8_0"):
        check_type("q4_k_m")
    adapter = tiny_models.write_adapter(tmp_path / "adapter.gguf")
    with pytest.raises(ModelFileError, match=r"layers with|layers without"):
        inflate(adapter, tmp_path / "x.gguf", 3_000_000)
    with pytest.raises(ModelFileError, match=r"no such file|cannot be"):
        inflate(tmp_path / "none.gguf", tmp_path / "x.gguf", 3_000_000)
    assert not (tmp_path / "x.gguf").exists(), "nothing is begun"


@pytest.mark.parametrize(
    ("text", "count"), [("300M", 300_000_000), ("1.5b", 1_500_000_000), ("250000", 250_000)]
)
def test_numbers_of_parameters_are_read_with_their_unit(text: str, count: int):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "many", "-3M", "0", "300 T"])
def test_what_is_not_a_number_of_parameters_is_refused(text: str):
    with pytest.raises(RequestError, match="is not a number of parameters"):
        parse_count(text)


# -- the program ---------------------------------------------------------------------------


def test_peers_add_three_llama_objects_with_the_same_tokens(tiny: Family, prompts_file: str):
    options = ("--prompts", prompts_file, "--tokens", "8", "--rounds", "2", "--peers")
    result, table = run_bench(bench.command, tiny, *options)
    for key in ("peers_tps", "auto_tps", "base_alone_tps"):
        assert isinstance(result[key], float), key
        assert result[key] > 0, key
    assert {tuple(counts) for counts in result["equal"].values()} == {(6, 6)}
    assert result["equal"]["three Llama objects"] == [6, 6]
    for text in ("auto / three Llama objects", "emulated / three Llama objects"):
        assert text in table
        assert text in result["ratios"]


def test_inflate_within_the_run_measures_the_inflated_base(tiny: Family, prompts_file: str):
    result, _ = run_bench(
        bench.command,
        tiny,
        "--prompts",
        prompts_file,
        "--tokens",
        "6",
        "--rounds",
        "1",
        "--inflate",
        "2M",
    )
    assert result["inflated"]["parameters"] >= 2_000_000
    assert result["inflated"]["largest_logit_difference"] == 0.0
    assert result["models"]["base"].startswith("Q8_0, 2.")


def test_overhead_is_measured_against_bare_decodes(tiny: Family, prompts_file: str):
    result, table = run_bench(
        bench.command, tiny, "--prompts", prompts_file, "--tokens", "20", "--overhead"
    )
    overhead = result["overhead"]
    assert overhead["pairs"] >= 30
    assert set(overhead["step_ratio"]) == {"median", "low", "high"}
    assert overhead["choice_152k_ms"]["greedy"] > 0
    assert "bare / bare (A/A)" in table


def test_peers_are_refused_with_a_temperature(tiny: Family, prompts_file: str):
    with pytest.raises(RequestError, match="--peers is greedy"):
        run_bench(bench.command, tiny, "--prompts", prompts_file, "--peers", "--temperature", "0.7")


def test_an_error_of_the_bench_is_one_line_and_status_2(tmp_path: Path):
    """Errors are one line and status 2, as in every command."""
    done = subprocess.run(
        [sys.executable, LAB / "bench.py", "none.toml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "none.toml" in done.stderr


# -- pairs ---------------------------------------------------------------------------------


def pairs(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, LAB / "pairs.py", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["whole", "steps"])
def test_pairs_compares_two_checkouts_in_turns(atlas: Family, tmp_path: Path, mode: str):
    """The other one is this one by another path."""
    for name in ("edge_eft", "models"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    done = pairs(tmp_path, "--pairs", "2", "--mode", mode)
    assert done.returncode == 0, done.stderr
    assert "this / other" in done.stdout
    assert "other / other (A/A)" in done.stdout
    assert "replies differ" not in done.stdout


def test_a_folder_without_the_package_is_not_compared(atlas: Family, tmp_path: Path):
    """What is installed would answer in its place."""
    done = pairs(tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path}: has no edge_eft" in done.stderr or "ended with no answer" in done.stderr
