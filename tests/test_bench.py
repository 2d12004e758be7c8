"""The benchmark: that it measures what it says, on models too small for the figures to matter."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from click.testing import CliRunner
from conftest import Family

import edge_eft
from edge_eft import Emulator
from edge_eft.backend import CACHE_LADDER, Context, Model
from edge_eft.backend.bare import Bare
from edge_eft.bench.command import command, largest_difference
from edge_eft.bench.inflate import N_LAYERS, Inflation, check_type, inflate, parse_count
from edge_eft.bench.measure import AUTO, EMULATED, Plan, Session
from edge_eft.bench.model import CostModel
from edge_eft.bench.report import peak_bytes, quartiles, ratio
from edge_eft.errors import ModelFileError, PromptError, RequestError
from edge_eft.gguf_check import read_header

gguf = pytest.importorskip("gguf")

CHECKOUT = Path(edge_eft.__file__).resolve().parent.parent
PROMPTS = ["the red one", "It is", "a test of the in"]


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


def test_blocks_through_an_inflated_model_are_the_same_too(tiny: Family, tmp_path: Path):
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
def test_a_published_model_inflated(smollm2_path: Path, tmp_path: Path):
    made = inflate(smollm2_path, tmp_path / "big.gguf", 200_000_000)
    assert is_reached(made, 200_000_000, d=576)
    assert largest_difference(smollm2_path, made.path) <= 1e-4


def test_what_cannot_be_inflated(tiny: Family, tmp_path: Path):
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
def test_numbers_of_parameters(text: str, count: int):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "many", "-3M", "0", "300 T"])
def test_no_numbers_of_parameters(text: str):
    with pytest.raises(RequestError, match="is not a number of parameters"):
        parse_count(text)


# -- bare decodes --------------------------------------------------------------------------


def test_bare_decodes_leave_no_trace(tiny: Family):
    """The owner's bookkeeping knows nothing of them, so it must not be trusted afterwards."""
    model = Model(tiny.base)
    bare = Bare(model, n_ctx=64, n_threads=1, n_outputs=8, cache=CACHE_LADDER[0])
    prompt, longer = [1, 280, 300], [1, 280, 300, 301]
    expected = {}
    for ids in (prompt, longer):
        context = Context(model, n_ctx=64, n_outputs=8)
        expected[len(ids)] = context.advance({0: (np.array(ids, np.int32), 1)})[0][0].copy()
    for ids in (prompt, prompt, longer, prompt, longer):
        assert np.array_equal(bare.start(ids), expected[len(ids)])
        assert bare.decode_each([310, 311, 312]) > 0
        bare.take_back(1)
        assert bare.decode_block([320, 321, 322, 323]) > 0
    bare.close()


# -- the cost model ------------------------------------------------------------------------


def test_the_cost_model_by_hand():
    costs = CostModel(1.0, [{1: 10.0, 2: 12.0, 4: 20.0}, {1: 1.0, 2: 1.0, 4: 2.0}])
    assert costs.step() == 12
    assert costs.block(1) == 2 + 12 + 1
    assert costs.block(3) == 4 + 20 + 2
    assert costs.block(2) == 3 + 16 + 1.5, "interpolated"
    assert costs.endless_rate(0.5, 1) == 1.5 / 15
    assert costs.endless_rate(1.0, 3) == 4 / 26
    assert costs.seconds_of_reply(0.7, 0, 5) == 60
    assert costs.seconds_of_reply(0.0, 1, 5) == 5 * 15, "no draft is ever right"
    assert costs.seconds_of_reply(1.0, 3, 8) == 2 * 26, "two whole blocks"
    assert costs.seconds_of_reply(1.0, 3, 2) == costs.last_block(2) == 2 + 12 + 1
    # One token left: its draft is right, and is the end; or it is wrong, after a whole block.
    assert costs.seconds_of_reply(0.5, 1, 1) == 0.5 * (1 + 10 + 1) + 0.5 * 15


@pytest.mark.parametrize(("acceptance", "k", "n"), [(0.8, 3, 6), (0.5, 2, 7), (0.9, 7, 5)])
def test_expected_seconds_are_the_mean_over_all_outcomes(acceptance: float, k: int, n: int):
    costs = CostModel(1.0, [{1: 10.0, 16: 30.0}])
    total = 0.0
    for right in itertools.product((True, False), repeat=n):
        probability = np.prod([acceptance if each else 1 - acceptance for each in right])
        seconds, at = 0.0, 0
        while at < n:
            block = right[at : at + k]
            n_right = next((j for j, each in enumerate(block) if not each), len(block))
            ends = at + n_right == n
            seconds += costs.last_block(n_right) if ends else costs.block(k)
            at += n_right if ends else n_right + 1
        total += probability * seconds
    assert costs.seconds_of_reply(acceptance, k, n) == pytest.approx(total)


def test_a_long_reply_is_as_fast_as_one_without_end():
    costs = CostModel(1.0, [{1: 20.0, 16: 50.0}])
    assert costs.best_rate(0.8, [2000]) == pytest.approx(costs.best_endless_rate(0.8), rel=0.01)
    assert costs.best_rate(0.8, [3]) < costs.best_endless_rate(0.8)


def test_statistics():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (3.0, 2.0, 4.0)
    rng = np.random.default_rng(1)
    noise = (1 + 0.01 * rng.standard_normal((2, 50))).tolist()
    about = ratio([2 * value for value in noise[0]], noise[1])
    assert about["low"] < about["median"] < about["high"]
    assert about == {name: pytest.approx(2.0, rel=0.02) for name in ("median", "low", "high")}


# -- the rounds ----------------------------------------------------------------------------


def loaded(family: Family, n_ctx: int = 256) -> Emulator:
    base, tuned, reference, _ = family
    return Emulator.from_files(
        base=base, tuned=tuned, reference=reference, n_ctx=n_ctx, n_threads=1
    )


def test_every_way_answers_with_the_same_tokens(tiny: Family):
    plan = Plan(tokens=10, rounds=2, temperature=0.7, ignore_end=True, drafts=(2, 8))
    with loaded(tiny) as e:
        session = Session(e, PROMPTS, plan)
        figures = session.warm_up(peak_bytes)
        progress: list[int] = []
        session.run(figures, progress.append)
        session.close()
    assert progress == [1, 2]
    assert [len(reply) for reply in figures.replies] == [10, 10, 10]
    for name, tally in figures.tallies.items():
        assert tally.equal == tally.compared == 6, name
        assert tally.tokens == [30, 30]
        assert all(rate > 0 for rate in tally.rates())
        assert (tally.tested > 0) == (name in ("drafts of 2", "drafts of 8", AUTO)) or name == AUTO
    assert len(figures.prefill) == 2
    assert figures.second_turns == [], "raw prompts have none"
    assert figures.peak_bytes > 1 << 20


def test_auto_learns_from_its_own_blocks_only(tiny: Family):
    with loaded(tiny) as e:
        session = Session(e, PROMPTS, Plan(tokens=10, ignore_end=True))
        session.ways["drafts of 8"].answer(0)
        session.ways[EMULATED].answer(0)
        assert e.drafts.tested == 0, "the policy of the way that ran last"
        session.ways["drafts of 8"].answer(0)
        assert e.drafts.tested > 0


def test_a_prompt_that_does_not_fit_is_refused_at_once(tiny: Family):
    with (
        loaded(tiny, n_ctx=16) as e,
        pytest.raises(PromptError, match="tokens for base"),
    ):
        Session(e, ["It is", "the red one " * 20], Plan())


# -- the program ---------------------------------------------------------------------------


def run(family: Family, *arguments: str) -> tuple[dict[str, object], str]:
    files = [str(path) for path in family[:3]]
    roles = ["--base", files[0], "--tuned", files[1], "--reference", files[2]]
    result = CliRunner().invoke(command, [*roles, "--threads", "1", *arguments])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


@pytest.fixture
def prompts_file(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(text) + "\n" for text in PROMPTS))
    return str(path)


def test_the_object_and_the_table(tiny: Family, prompts_file: str):
    options = ("--prompts", prompts_file, "--tokens", "8", "--rounds", "2", "--peers")
    result, table = run(tiny, *options)
    alone = ["base_alone_tps", "tuned_alone_tps", "bare_sum_tps", "peers_tps"]
    emulated = ["emulated_tps", "auto_tps", "predicted_auto_tps", "prefill_tps"]
    for key in [*alone, *emulated, "second_turn_ttft_s", "peak_mib"]:
        assert isinstance(result[key], float), key
        assert result[key] > 0, key
    assert set(result["drafted_tps"]) == {"2", "4", "8"}
    assert 0 <= result["acceptance"] <= 1
    assert result["machine"]["usable_cpus"] >= 1
    assert {tuple(counts) for counts in result["equal"].values()} == {(6, 6)}
    assert result["equal"]["three Llama objects"] == [6, 6]
    for text in ("auto / base alone", "A/A", "time, auto", "decode of n tokens", "same tokens"):
        assert text in table


def test_inflated_within_the_run(tiny: Family, prompts_file: str):
    result, _ = run(
        tiny, "--prompts", prompts_file, "--tokens", "6", "--rounds", "1", "--inflate", "2M"
    )
    assert result["inflated"]["parameters"] >= 2_000_000
    assert result["inflated"]["largest_logit_difference"] == 0.0
    assert result["models"]["base"].startswith("Q8_0, 2.")


def test_overhead(tiny: Family, prompts_file: str):
    result, table = run(tiny, "--prompts", prompts_file, "--tokens", "20", "--overhead")
    overhead = result["overhead"]
    assert overhead["pairs"] >= 30
    assert set(overhead["step_ratio"]) == {"median", "low", "high"}
    assert overhead["choice_152k_ms"]["greedy"] > 0
    assert "bare / bare (A/A)" in table


def test_what_peers_cannot_do(tiny: Family, prompts_file: str):
    with pytest.raises(RequestError, match="--peers is greedy"):
        run(tiny, "--prompts", prompts_file, "--peers", "--temperature", "0.7")


def test_from_a_checkout(tmp_path: Path):
    """Errors are one line and status 2, as in every command."""
    done = subprocess.run(
        [sys.executable, CHECKOUT / "tools" / "bench.py", "none.toml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "none.toml" in done.stderr
