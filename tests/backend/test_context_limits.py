"""Contexts at their limits and ends: what is refused, adapters, and what closing leaves behind."""

import gc
import os

import numpy as np
import psutil
import pytest
from helpers import tiny_models
from helpers.context_tools import assert_healthy, fresh_logits, some_tokens

from edge_eft.backend import CACHE_LADDER, CacheKind, Context, Model
from edge_eft.errors import EngineError, ModelFileError, RequestError

pytestmark = pytest.mark.timeout(60)


# -- refusals in Python, where llama.cpp would abort the process -------------------------------


@pytest.mark.parametrize(
    ("sequence", "tokens", "keep_last", "message"),
    [
        (-1, [300], 1, "no sequence -1"),
        (2, [300], 1, "no sequence 2"),
        (0, [], 1, "1 rows wanted after 0 tokens"),
        (0, [300], 0, "0 rows wanted"),
        (0, [300], -1, "-1 rows wanted"),
        (0, [300], 2, "2 rows wanted after 1 tokens"),
        (0, [300] * 9, 9, "more than the 8 logit rows"),
        (0, [300, -1], 1, "token id is outside 0 … 351"),
        (0, [300, 352], 1, "token id is outside 0 … 351"),
        (0, [2**31 - 1], 1, "token id is outside"),
        (0, [300] * 33, 1, "33 tokens do not fit a context of 32"),
    ],
)
def test_impossible_targets_are_refused(tiny_model, sequence, tokens, keep_last, message):
    context = Context(tiny_model, n_ctx=32, n_slots=2, n_outputs=8)
    held = some_tokens(tiny_model, 7)
    context.advance({1: (held, 1)})
    good = (some_tokens(tiny_model, 5), 1)
    with pytest.raises(RequestError, match=message):
        context.advance({1: good, sequence: (np.array(tokens, np.int32), keep_last)})
    assert np.array_equal(context.tokens(1), good[0] if sequence == 1 else held)
    assert context.decoded_tokens == 7
    assert_healthy(context, tiny_model)


def test_a_model_without_weights_makes_no_context(tiny):
    model = Model(tiny.base, vocab_only=True)
    assert model.tokenize("the red one")
    with pytest.raises(EngineError, match="loaded without its weights"):
        Context(model, n_ctx=32)


def test_a_cache_kind_that_the_model_refuses_is_named_and_the_next_works(folder):
    """Head size 16 takes no Q8_0 cache; the next rung of the ladder works."""
    path = tiny_models.write_random(folder / "head16.gguf", seed=4, head_size=16)
    model = Model(path)
    tokens = some_tokens(model, 9)
    with pytest.raises(EngineError, match=r"head16\.gguf cannot run with Q8_0 KV"):
        Context(model, n_ctx=32, cache=CACHE_LADDER[0])
    f16 = fresh_logits(model, tokens, cache=CACHE_LADDER[1])
    f32 = fresh_logits(model, tokens, cache=CacheKind("f32", False))
    np.testing.assert_allclose(f16, f32, atol=0.3)


# -- LoRA --------------------------------------------------------------------------------------


def test_an_adapter_acts_on_its_context_only(tiny_model, folder):
    path = tiny_models.write_adapter(folder / "adapter.gguf")
    adapter = tiny_model.load_adapter(path)
    tokens = some_tokens(tiny_model, 12)
    before = fresh_logits(tiny_model, tokens)
    plain = Context(tiny_model, n_ctx=32)
    adapted = Context(tiny_model, n_ctx=32, lora=adapter)
    for _ in range(2):
        assert np.array_equal(plain.advance({0: (tokens, 1)})[0], before)
        assert np.abs(adapted.advance({0: (tokens, 1)})[0] - before).max() > 0.1
    adapted.close()
    assert np.array_equal(plain.advance({0: (tokens, 1)})[0], before)


def test_adapters_that_do_not_fit_are_refused_by_name(tiny_model, tiny, folder):
    with pytest.raises(ModelFileError, match="is a model, not a LoRA adapter"):
        tiny_model.load_adapter(tiny.tuned)
    wide = tiny_models.write_adapter(folder / "wide.gguf", d=96)
    with pytest.raises(ModelFileError, match=r"wide\.gguf does not fit random0\.gguf"):
        tiny_model.load_adapter(wide)
    deep = tiny_models.write_adapter(folder / "deep.gguf", n_layer=5)
    with pytest.raises(ModelFileError, match=r"deep\.gguf does not fit random0\.gguf"):
        tiny_model.load_adapter(deep)
    with pytest.raises(ModelFileError, match="LoRA adapter, not a model"):
        Model(wide)


# -- lifetime ----------------------------------------------------------------------------------


def test_weights_outlive_the_model_object(tiny):
    """A context keeps its model's weights; nothing else need be kept alive."""
    model = Model(tiny.base)
    tokens = some_tokens(model, 9)
    expected = fresh_logits(model, tokens)
    context = Context(model, n_ctx=32)
    del model
    gc.collect()
    assert np.array_equal(context.advance({0: (tokens, 1)})[0], expected)
    del context
    gc.collect()


def test_closing_twice_and_in_any_order_does_no_harm(tiny):
    model = Model(tiny.base)
    first, second = Context(model, n_ctx=32), Context(model, n_ctx=32)
    first.close()
    first.close()
    first.abort()  # a late Ctrl-C
    first.resume()
    assert_healthy(second, model)
    second.close()
    model.close()
    model.close()
    del first, second, model
    gc.collect()


def test_no_memory_is_lost_to_closed_contexts(tiny_model):
    process = psutil.Process(os.getpid())
    tokens = some_tokens(tiny_model, 30)

    def cycle(n):
        for _ in range(n):
            context = Context(tiny_model, n_ctx=256, n_slots=2, n_outputs=16)
            context.advance({0: (tokens, 4), 1: (tokens[:5], 1)})
            context.close()
        gc.collect()
        return process.memory_info().rss

    cycle(30)
    before = cycle(20)
    growth = cycle(200) - before
    assert growth < 4 << 20, f"{growth / 2**20:.1f} MiB in 200 contexts"


def test_no_memory_is_lost_to_models_that_are_dropped(tiny):
    process = psutil.Process(os.getpid())

    def cycle(n):
        for _ in range(n):
            model = Model(tiny.base)
            Context(model, n_ctx=64).advance({0: (some_tokens(model, 5), 1)})
        gc.collect()
        return process.memory_info().rss

    cycle(20)
    before = cycle(10)
    growth = cycle(60) - before
    assert growth < 4 << 20, f"{growth / 2**20:.1f} MiB in 60 models"
