"""Roles and their seats: what is decoded, what each role thinks, LoRA, and `score`."""

import numpy as np
import pytest
import tiny_models
from bare_llama import bare
from emulator_tools import (
    GREEDY,
    UNDRAFTED,
    decoded,
    decoded_since,
    open_emulator,
    run,
    tokens_of,
)
from scipy.special import log_softmax, logsumexp

from edge_eft import Emulator, Request, Weights
from edge_eft.backend import Context, Model
from edge_eft.errors import EngineError, PromptError, RequestError

pytestmark = pytest.mark.timeout(60)

ROLES = {"base", "tuned:tuned", "reference:tuned"}


# -- explain -----------------------------------------------------------------------------------


def test_explain_shows_whole_distributions(tiny):
    n_vocab = tiny_models.N_VOCAB
    with open_emulator(tiny) as emulator:
        for weights in (Weights.upscale(1.0), Weights.upscale(0.0), Weights.only("tuned")):
            prompt = "the red one"
            options = {"explain": n_vocab, "max_tokens": 5, "seed": 1} | UNDRAFTED
            steps = list(emulator.stream(prompt, weights=weights, **options))
            for step in steps:
                assert set(step.explain) == ROLES
            for role, path in zip(("base", "tuned:tuned", "reference:tuned"), tiny, strict=False):
                model = bare(path)
                rows = model.log_probabilities(model.tokenize(prompt), tokens_of(steps))
                for step, row in zip(steps, rows, strict=True):
                    view = step.explain[role]
                    assert abs(logsumexp([p for _, _, p in view.top])) < 1e-4
                    assert len(view.top) == n_vocab
                    assert abs(view.logprob - row[step.token]) < 1e-4
                    for token, _, logprob in view.top:
                        assert abs(logprob - row[token]) < 1e-4


@pytest.mark.parametrize("n", [1, 3, 10_000])
def test_explain_gives_the_likeliest_first(tiny, n):
    with open_emulator(tiny) as emulator:
        for step in emulator.stream("the red", explain=n, max_tokens=6, seed=1):
            for view in step.explain.values():
                logprobs = [p for _, _, p in view.top]
                assert len(view.top) == min(n, tiny_models.N_VOCAB)
                assert logprobs == sorted(logprobs, reverse=True)
                assert view.logprob <= logprobs[0]
                model = emulator.contexts[0].model
                for token, text, _ in view.top:
                    assert text == model.piece(token, special=True).decode("utf-8", "replace")
        assert next(emulator.stream("the red")).explain is None


def test_explain_changes_no_token(family):
    options = {"max_tokens": 12, "seed": 3}
    with open_emulator(family) as emulator:
        plain = emulator.generate(family.prompts[0], **options)
        explained = list(emulator.stream(family.prompts[0], explain=2, **options))
        tokens = [t for t in tokens_of(explained) if t != emulator.vocabulary.end_token]
        assert tokens == plain.tokens


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


def test_no_weight_at_all_is_refused(tiny):
    """β = 0 with a mix of nothing leaves no model to ask."""
    with open_emulator(tiny) as emulator:
        nothing = Weights.amplify(0.0, mix={"tuned": 0.0})
        with pytest.raises(RequestError):
            emulator.generate("the red", weights=nothing, max_tokens=2)
        with pytest.raises(RequestError):
            emulator.score("the red", "the", weights=nothing)
        assert len(emulator.generate("the red", max_tokens=2).tokens) == 2


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


def test_a_shared_reference_has_one_seat(tmp_path, tiny):
    with Emulator.load(two_deltas(tmp_path, tiny), n_threads=1, n_ctx=64) as emulator:
        roles = [runner.roles for runner in emulator.contexts]
        assert roles == [("base",), ("tuned:a",), ("reference:a", "reference:b"), ("tuned:b",)]
        # tuned:b is the base's file: one set of weights, but a context of its own.
        assert emulator.contexts[0].model is emulator.contexts[3].model
        steps = list(emulator.stream("the red", explain=1, max_tokens=4, **UNDRAFTED))
        assert len(steps[0].explain) == 5
        per_seat = set(decoded(emulator).values())
        assert len(per_seat) == 1
    path = two_deltas(tmp_path, tiny, prompt_b="transcript", name="apart")
    with Emulator.load(path, n_threads=1, n_ctx=64) as emulator:
        assert len(emulator.contexts) == 5


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_role_that_joins_late(tmp_path, tiny, n_threads):
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


def test_a_tuned_side_that_is_an_adapter(tmp_path, tiny):
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
    adapter = tiny_models.write_adapter(tmp_path / "silent.gguf", loudness=0.0)
    with Emulator.load(lora_recipe(tmp_path, tiny, adapter), n_threads=1, n_ctx=64) as emulator:
        generation = emulator.generate("the red", max_tokens=12, **GREEDY)
    model = bare(tiny.base)
    assert generation.tokens == model.greedy(model.tokenize("the red"), 12)


# -- score -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 32, 33, 40])
@pytest.mark.parametrize("weights", [Weights.upscale(1.0), Weights.amplify(1.3)])
def test_score_is_what_the_steps_say(tiny, n, weights):
    options = {"max_tokens": n, "temperature": 1.0, "seed": n, "weights": weights}
    with open_emulator(tiny, n_ctx=64) as emulator:
        steps = list(emulator.stream("the red", **options))
        tokens = tokens_of(steps)
        score = emulator.score("the red", tokens, weights=weights)
        assert score.shape == (n,)
        assert score.dtype == np.float32
        assert score.tolist() == [np.float32(step.logprob) for step in steps]
    total = 0.0
    for path, c in zip(tiny, weights.coefficients({"tuned": 1.0}).values(), strict=False):
        model = bare(path)
        total = total + c * model.log_probabilities(model.tokenize("the red"), tokens)
    expected = log_softmax(total, axis=-1)[np.arange(n), tokens]
    np.testing.assert_allclose(score, expected, rtol=0, atol=1e-4)


def test_score_of_a_text_and_of_the_end(family):
    prompt = family.prompts[0]
    with open_emulator(family) as emulator:
        generation = emulator.generate(prompt, max_tokens=10, **GREEDY)
        end = emulator.vocabulary.end_token
        by_ids = emulator.score(prompt, [*generation.tokens, end])
        by_text = emulator.score(prompt, generation.text)
        assert by_text.sum() <= by_ids[:-1].sum() + 1e-3 or len(by_text) != len(by_ids) - 1
        assert (by_ids <= 0).all()
        assert emulator.score(prompt, []).shape == (0,)
        conservative = emulator.score(prompt, generation.tokens, conservative=0.9)
        assert np.isfinite(conservative).all()


def test_score_at_the_contexts_end(tiny):
    """Whatever `generate` can give can be scored."""
    with open_emulator(tiny, n_ctx=48) as emulator:
        for n_prompt in (1, 20, 47):
            prompt = "?" * (n_prompt - 1)
            steps = list(emulator.stream(prompt, max_tokens=99, logit_bias={tiny_models.EOS: -99}))
            assert n_prompt + len(steps) == 49
            score = emulator.score(prompt, tokens_of(steps))
            np.testing.assert_allclose(score, [step.logprob for step in steps], atol=1e-4)
        with pytest.raises(PromptError, match="70 tokens and 4"):
            emulator.score("?" * 19, [300] * 50)


def test_score_beside_live_requests(tiny):
    request = Request("the red one", max_tokens=12, seed=1)
    with open_emulator(tiny) as emulator:
        expected = tokens_of(emulator.stream(request))
        score = emulator.score("it is", [300, 301])
    with open_emulator(tiny, n_slots=2) as emulator:
        request_id = emulator.submit(request)
        steps = emulator.step()
        assert np.array_equal(emulator.score("it is", [300, 301]), score)
        steps += emulator.step()
        emulator.submit(Request("a", max_tokens=30))
        steps += [step for step in emulator.step() if step.request_id == request_id]
        with pytest.raises(EngineError, match="all 2 slots are in use"):
            emulator.score("it is", [300, 301])
        steps += run(emulator)[request_id]
        assert tokens_of(steps) == expected


@pytest.mark.parametrize(
    "tokens", [[-1], [352], [300, -1, 301], [300, 352, 301], [300, 2**40, 301]]
)
def test_scores_of_impossible_tokens(tiny, tokens):
    with open_emulator(tiny, n_ctx=64) as emulator:
        with pytest.raises(RequestError):
            emulator.score("the", tokens)
        assert emulator.score("the", [300]).shape == (1,)


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
