"""Roles and their contexts: which are decoded, shared and caught up; several deltas; LoRA; NaN."""

import numpy as np
import pytest
from helpers import tiny_models
from helpers.bare_llama import bare
from helpers.emulator_tools import (
    GREEDY,
    ROLES,
    UNDRAFTED,
    decoded,
    decoded_since,
    open_emulator,
)
from scipy.special import log_softmax

from edge_eft import Emulator, Request, Weights
from edge_eft.backend import Context, Model
from edge_eft.errors import EngineError, RequestError

pytestmark = pytest.mark.timeout(60)


# -- which roles are decoded -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "roles"),
    [
        (Weights.upscale(0.0), {"base"}),
        (Weights.only("tuned"), {"tuned:tuned"}),
        (Weights.only("reference"), {"reference:tuned"}),
        (Weights.amplify(0.0), {"tuned:tuned"}),
        (Weights.interpolate({"tuned": 0.0}), {"base"}),
        (Weights.upscale(0.5), ROLES),
    ],
)
def test_roles_without_weight_are_not_decoded(tiny, weights, roles):
    with open_emulator(tiny) as emulator:
        steps = list(emulator.stream("the red", weights=weights, max_tokens=5, **UNDRAFTED))
        assert {name for name, n in decoded(emulator).items() if n} == roles
        assert set(steps[0].timings.prefill) == roles


def test_roles_catch_up_when_they_get_weight(tiny):
    request = Request(
        "the red one", weights=Weights.upscale(0.0), max_tokens=12, **GREEDY, **UNDRAFTED
    )
    with open_emulator(tiny) as emulator:
        request_id = emulator.submit(request)
        for _ in range(6):
            emulator.step()
        held = len(emulator.contexts[0].context.tokens(0))
        assert [len(runner.context.tokens(0)) for runner in emulator.contexts[1:]] == [0, 0]
        emulator.set_weights(request_id, Weights.upscale(1.0))
        before = decoded(emulator)
        emulator.step()
        assert decoded_since(emulator, before) == {
            "base": 1,
            "tuned:tuned": held + 1,
            "reference:tuned": held + 1,
        }


def test_weights_that_leave_no_model_are_refused_by_the_emulator(tiny):
    """β = 0 with a mix of nothing leaves no model to ask."""
    with open_emulator(tiny) as emulator:
        nothing = Weights.amplify(0.0, mix={"tuned": 0.0})
        with pytest.raises(RequestError):
            emulator.generate("the red", weights=nothing, max_tokens=2)
        with pytest.raises(RequestError):
            emulator.score("the red", "the", weights=nothing)
        assert len(emulator.generate("the red", max_tokens=2).tokens) == 2


# -- several deltas ----------------------------------------------------------------------------


def two_deltas(folder, tiny, *, reference_b=None, prompt_b="plain", name="two"):
    path = folder / f"{name}.toml"
    path.write_text(
        f"""
        [base]
        file = '{tiny.base}'
        [delta.a]
        tuned = {{ file = '{tiny.tuned}' }}
        reference = {{ file = '{tiny.reference}' }}
        [delta.b]
        weight = 0.5
        tuned = {{ file = '{tiny.base}' }}
        reference = {{ file = '{reference_b or tiny.reference}', prompt = '{prompt_b}' }}
        """
    )
    return path


def test_a_shared_reference_has_one_context(tmp_path, tiny):
    with Emulator.load(two_deltas(tmp_path, tiny), n_threads=1, n_ctx=64) as emulator:
        roles = [runner.roles for runner in emulator.contexts]
        assert roles == [("base",), ("tuned:a",), ("reference:a", "reference:b"), ("tuned:b",)]
        # tuned:b is the base's file: one set of weights, but a context of its own.
        assert emulator.contexts[0].model is emulator.contexts[3].model
        steps = list(emulator.stream("the red", explain=1, max_tokens=4, **UNDRAFTED))
        assert len(steps[0].explain) == 5
        per_context = set(decoded(emulator).values())
        assert len(per_context) == 1
    path = two_deltas(tmp_path, tiny, prompt_b="transcript", name="apart")
    with Emulator.load(path, n_threads=1, n_ctx=64) as emulator:
        assert len(emulator.contexts) == 5


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_role_that_joins_late_catches_up_without_changing_the_reply(tmp_path, tiny, n_threads):
    """One of three small models catches up."""
    first, second = Weights.interpolate({"a": 1.0}), Weights.interpolate({"a": 0.5, "b": 0.5})
    options = {"max_tokens": 4, "seed": 2, **UNDRAFTED}
    path = two_deltas(tmp_path, tiny)
    with Emulator.load(path, n_threads=1, n_ctx=64) as emulator:
        expected = [emulator.generate("the red", weights=w, **options) for w in (first, second)]
    with Emulator.load(path, n_threads=n_threads, n_ctx=64) as emulator:
        replies = [emulator.generate("the red", weights=w, **options) for w in (first, second)]
    assert [r.tokens for r in replies] == [r.tokens for r in expected]


def test_several_deltas_add_up(tmp_path, tiny):
    mixes = [
        (Weights.upscale(1.0), (1.0, 0.5)),
        (Weights.upscale(0.6), (0.6, 0.3)),
        (Weights.interpolate({"a": 0.2, "b": 0.8}), (0.2, 0.8)),
        (Weights.interpolate({"b": 1.0}, alpha=0.5), (0.0, 0.5)),
    ]
    with Emulator.load(two_deltas(tmp_path, tiny), n_threads=1, n_ctx=64) as emulator:
        for weights, (a, b) in mixes:
            (step,) = emulator.stream("the red", weights=weights, max_tokens=1, seed=2)
            base, tuned, reference = (bare(path) for path in tiny[:3])
            rows = [m.start(m.tokenize("the red")) for m in (base, tuned, reference)]
            total = rows[0] + a * (rows[1] - rows[2]) + b * (rows[0] - rows[2])
            assert abs(log_softmax(total)[step.token] - step.logprob) < 1e-4


# -- LoRA --------------------------------------------------------------------------------------


def lora_recipe(folder, tiny, adapter):
    path = folder / f"{adapter.stem}.toml"
    path.write_text(
        f"""
        [base]
        file = '{tiny.base}'
        [delta.chat]
        tuned = {{ lora = '{adapter}', on = "reference", prompt = "plain" }}
        reference = {{ file = '{tiny.reference}' }}
        """
    )
    return path


def test_an_adapter_as_tuned_side_gives_the_sum_of_adapted_logits(tmp_path, tiny):
    adapter = tiny_models.write_adapter(tmp_path / "adapter.gguf")
    with Emulator.load(lora_recipe(tmp_path, tiny, adapter), n_threads=1, n_ctx=64) as emulator:
        tuned, reference = emulator.contexts[1:]
        assert tuned.model is reference.model
        prompt = "the red one"
        options = {"max_tokens": 5, "seed": 4}
        steps = list(emulator.stream(prompt, weights=Weights.upscale(1.5), **options))
        model = Model(tiny.reference)
        adapted = Context(model, n_ctx=64, lora=model.load_adapter(adapter))
        others = [bare(tiny.base), bare(tiny.reference)]
        ids = others[0].tokenize(prompt)
        for step in steps:
            base, plain = (other.start(ids) for other in others)
            row = adapted.advance({0: (np.array(ids, np.int32), 1)})[0][0].astype(np.float64)
            assert np.abs(row - plain).max() > 0.1
            log_p = log_softmax(base + 1.5 * (row - plain))
            assert abs(log_p[step.token] - step.logprob) < 1e-4
            ids.append(step.token)


def test_an_adapter_that_changes_nothing_is_the_base(tmp_path, tiny):
    adapter = tiny_models.write_adapter(tmp_path / "silent.gguf", loudness=1e-20)
    with Emulator.load(lora_recipe(tmp_path, tiny, adapter), n_threads=1, n_ctx=64) as emulator:
        generation = emulator.generate("the red", max_tokens=12, **GREEDY)
    model = bare(tiny.base)
    assert generation.tokens == model.greedy(model.tokenize("the red"), 12)


# -- models that give no numbers ---------------------------------------------------------------


def test_nan_names_the_role_and_leaves_the_others_usable(folder, tiny):
    path = tiny_models.write_random(folder / "nan.gguf", seed=1, quantised=False, poison=np.nan)
    for role, files in {
        "base": (path, tiny.tuned, tiny.reference),
        "tuned:tuned": (tiny.base, path, tiny.reference),
        "reference:tuned": (tiny.base, tiny.tuned, path),
    }.items():
        with open_emulator(files, n_ctx=64) as emulator:
            with pytest.raises(EngineError, match=f"{role}.* gave NaN"):
                emulator.generate("the red", max_tokens=3)
            with pytest.raises(EngineError, match=f"{role}.* gave NaN"):
                emulator.score("the red", [300, 301])
            healthy = "tuned" if role == "base" else "base"
            generation = emulator.generate("the red", max_tokens=3, weights=Weights.only(healthy))
            assert len(generation.tokens) == 3
            assert emulator.step() == []
