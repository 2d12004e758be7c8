"""draft_policy: how many drafts there are follows what is measured, in a simulated world."""

from collections import Counter

import numpy as np
import pytest

from edge_eft.bench.cost_model import expected_tokens
from edge_eft.engine.draft_policy import DraftPolicy
from edge_eft.engine.request import MAX_DRAFT


def stepped(k):
    """Cost of verifying k drafts in single tokens of the base, stepped as on a CPU."""
    return float(
        np.interp(k + 1, (1, 2, 3, 4, 6, 8, 12, 16), (1, 1.4, 1.6, 1.7, 2.5, 2.8, 4.2, 5.5))
    )


class World:
    """Blocks as they come: drafts of some confidence, right so often, at some cost.

    Attributes:
        small: cost of proposing a token, in single tokens of the base.
        kinds: (share, confidence, acceptance) of the tokens.
        noise: costs vary by so much.
    """

    def __init__(self, small, kinds, *, cost=stepped, noise=0.05):
        self.small, self.kinds, self.cost, self.noise = small, kinds, cost, noise
        self.rng = np.random.default_rng(0)
        self.lengths = Counter()

    def run(self, policy, n, most=MAX_DRAFT):
        """Tokens per second of `n` blocks that the policy decides on."""
        tokens = seconds = 0.0
        for _ in range(n):
            more, cost = self.block(policy, most)
            tokens, seconds = tokens + more, seconds + cost
        return tokens / seconds

    def block(self, policy, most):
        wobble = self.rng.uniform(1 - self.noise, 1 + self.noise)
        if not policy.begins(1):
            cost = wobble * (self.small + self.cost(0))
            policy.observe_block(1, 0, 1, cost)
            return 1, cost
        drawn = self.rng.choice(len(self.kinds), MAX_DRAFT + 1, p=[kind[0] for kind in self.kinds])
        k, survival, right = 0, 1.0, True
        n_right = 0
        while True:
            _, confidence, acceptance = self.kinds[drawn[k]]
            if right:
                right = bool(self.rng.random() < acceptance)
                policy.observe_proposals([(confidence, right)])
                n_right += right
            survival *= policy.chance(confidence)
            if not policy.goes_on(1, k, most, survival):
                break
            k += 1
        self.lengths[k] += 1
        tokens = 1 + min(n_right, k)
        cost = wobble * ((k + 1) * self.small + self.cost(k))
        policy.observe_block(1, k, tokens, cost)
        return tokens, cost

    def fixed(self, k):
        """Tokens per second of blocks of k drafts, whatever their confidence."""
        a = sum(share * acceptance for share, _, acceptance in self.kinds)
        return expected_tokens(a, k) / ((k + 1) * self.small + self.cost(k))

    def best_fixed(self):
        return max(self.fixed(k) for k in range(MAX_DRAFT + 1))


UNINFORMED = [(1.0, 0.75, 0.8)]  # confidence says nothing
ATLAS = [(0.75, 0.99, 0.99), (0.25, 0.2, 0.2)]  # as measured there, roughly


@pytest.mark.parametrize(
    ("small", "kinds", "gain"),
    [
        (2.0, UNINFORMED, 0.97),  # down-scaling: the drafter is the large model
        (0.05, [(1.0, 0.5, 0.1)], 0.97),  # hardly a draft is right
        (0.1, UNINFORMED, 0.95),
        (0.02, [(1.0, 0.97, 0.95)], 0.95),  # nearly free and nearly always right: long blocks
        (0.02, ATLAS, 1.1),  # who knows where to stop is better than any fixed length
        (0.5, [(0.5, 0.3, 1.0), (0.5, 0.9, 1.0)], 0.97),  # the emulation is tuned itself
    ],
)
def test_the_policy_finds_what_pays(small, kinds, gain):
    world, policy = World(small, kinds), DraftPolicy()
    world.run(policy, 200)
    assert world.run(policy, 4000) > gain * world.best_fixed()


def test_drafts_stop_where_the_tuned_model_is_unsure():
    world, policy = World(0.02, ATLAS), DraftPolicy()
    world.run(policy, 300)
    assert policy.chance(0.2) < 0.4
    assert policy.chance(0.99) > 0.9
    assert policy.goes_on(1, 1, MAX_DRAFT, policy.chance(0.99))
    assert not policy.goes_on(1, 1, MAX_DRAFT, policy.chance(0.2))


@pytest.mark.parametrize("when", [1, 50, 300])
def test_the_policy_recovers_from_a_stall(when):
    """A first measurement may be taken in a stall as well as a later one."""
    world, policy = World(0.02, ATLAS), DraftPolicy()
    world.run(policy, when)
    policy.observe_block(1, 3, 3, 100.0)
    policy.observe_block(1, 0, 1, 100.0)
    assert world.run(policy, 1500) > world.best_fixed()


def test_the_policy_follows_when_costs_change():
    """Another program takes the cores: blocks of drafts stop paying, and pay again later."""
    policy = DraftPolicy()
    calm = World(0.02, ATLAS)
    contended = World(0.02, ATLAS, cost=lambda k: 1.0 + 2.0 * k)
    calm.run(policy, 500)
    contended.run(policy, 1500)
    assert contended.run(policy, 3000) > 0.93 * contended.best_fixed()
    calm.run(policy, 1500)
    assert calm.run(policy, 3000) > calm.best_fixed()


def test_the_policy_holds_when_the_machine_changes_its_speed():
    """Every 60 blocks another program comes or goes; a policy that compares rates would dither."""
    policy, tokens, seconds, best = DraftPolicy(), 0.0, 0.0, 0.0
    worlds = [
        World(speed * 0.02, ATLAS, cost=lambda k, speed=speed: speed * stepped(k))
        for speed in (1.0, 3.0)
    ]
    for n in range(50):
        world = worlds[n % 2]
        for _ in range(60):
            more, cost = world.block(policy, MAX_DRAFT)
            tokens, seconds, best = tokens + more, seconds + cost, best + more / world.best_fixed()
    assert best / seconds > 0.95


def test_the_policy_drafts_no_more_than_there_is_room_for():
    world, policy = World(0.02, [(1.0, 0.99, 0.99)]), DraftPolicy()
    world.run(policy, 100, most=2)
    assert max(world.lengths) == 2
