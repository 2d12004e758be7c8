"""The benchmark: that it measures what it says, on models too small for the figures to matter."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import Family

from edge_eft import Emulator
from edge_eft.backend import CACHE_LADDER, Context, Model
from edge_eft.backend.bare import Bare
from edge_eft.bench.cost_model import CostModel
from edge_eft.bench.measure import AUTO, EMULATED, Session
from edge_eft.bench.report import quartiles, ratio
from edge_eft.bench.ways import Plan
from edge_eft.cli.bench import command
from edge_eft.errors import PromptError

PROMPTS = ["the red one", "It is", "a test of the in"]


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
        figures = session.warm_up()
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
    result, table = run(tiny, "--prompts", prompts_file, "--tokens", "8", "--rounds", "2")
    alone = ["base_alone_tps", "tuned_alone_tps", "bare_sum_tps"]
    emulated = ["emulated_tps", "auto_tps", "predicted_auto_tps", "prefill_tps"]
    for key in [*alone, *emulated, "second_turn_ttft_s", "peak_mib"]:
        assert isinstance(result[key], float), key
        assert result[key] > 0, key
    assert set(result["drafted_tps"]) == {"2", "4", "8"}
    assert 0 <= result["acceptance"] <= 1
    assert result["machine"]["usable_cpus"] >= 1
    assert {tuple(counts) for counts in result["equal"].values()} == {(6, 6)}
    for text in ("auto / base alone", "A/A", "time, auto", "decode of n tokens", "same tokens"):
        assert text in table
