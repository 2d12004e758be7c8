"""measure: every way answers alike, and auto learns from its own blocks."""

import pytest
from helpers.families import Family

from edge_eft import Emulator
from edge_eft.bench.measure import AUTO, EMULATED, Session
from edge_eft.bench.ways import Plan
from edge_eft.errors import PromptError

PROMPTS = ["the red one", "It is", "a test of the in"]


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
        assert e.drafter.policy.tested == 0, "the policy of the way that ran last"
        session.ways["drafts of 8"].answer(0)
        assert e.drafter.policy.tested > 0


def test_a_prompt_that_does_not_fit_is_refused_at_once(tiny: Family):
    with (
        loaded(tiny, n_ctx=16) as e,
        pytest.raises(PromptError, match="tokens for base"),
    ):
        Session(e, ["It is", "the red one " * 20], Plan())
