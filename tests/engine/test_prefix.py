"""prefix: a reply that goes on after tokens of its own is the rest of the reply that has them."""

import random
from dataclasses import replace

import pytest
from helpers import tiny_models
from helpers.emulator_tools import (
    GREEDY,
    decoded,
    decoded_since,
    open_emulator,
    run,
    text_of,
    tokens_of,
)
from helpers.families import Family, twin
from helpers.tiny_hybrids import GOING_BACK, write_hybrid
from helpers.tiny_models import BOS, EOS, ID, OTHER_END, byte_tokens, script, write_script

from edge_eft import Emulator, Request, Weights
from edge_eft.engine.constraint import Constraint
from edge_eft.engine.prefix import prefix_parts
from edge_eft.errors import ContextLengthError, RequestError

pytestmark = pytest.mark.timeout(60)

PENALTIES = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2}
JSON = Constraint(json_schema={"type": "array", "items": {"type": "integer"}, "maxItems": 3})
WAYS = {
    "greedy": GREEDY,
    "penalties": {"seed": 3, "temperature": 1.2, **PENALTIES},
    "α": {"seed": 1, "weights": Weights.upscale(0.4)},
    "base": {"seed": 1, "weights": Weights.only("base")},
    "conservative": {"seed": 4, "conservative": 0.9},
    "filters": {"seed": 5, "top_k": 8, "top_p": 0.9, "min_p": 0.02, "logit_bias": {300: 3.0}},
    "schema": {"seed": 6, "constraint": JSON},
    "stop": {"seed": 8, "stop": ["zz", "e t"], "ignore_eos": True},
}


def facts(steps):
    """What a reply says token by token, whatever it took."""
    return [(s.index, s.token, s.text, s.finish_reason, s.stop_string) for s in steps]


def rest(emulator, request, whole, k):
    """The steps after the first `k` tokens of a whole reply, asked for by their ids."""
    ids = tokens_of(whole)[:k]
    length = request.max_tokens - k
    return list(emulator.stream(replace(request, prefix_ids=ids, max_tokens=length)))


@pytest.mark.parametrize("way", WAYS)
def test_a_prefix_gives_the_rest_of_the_whole_reply(family, way, draft):
    request = Request(family.prompts[0], **{"max_tokens": 10} | WAYS[way] | draft)
    with open_emulator(family) as emulator:
        whole = list(emulator.stream(request))
        for k in range(len(whole)):
            steps = rest(emulator, request, whole, k)
            assert facts(steps) == facts(whole)[k:]
            assert steps[0].with_prompt
            assert steps[0].logprob == pytest.approx(whole[k].logprob, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_requests_go_on_as_they_would_have(family, seed):
    rng = random.Random(seed)
    options = {
        "temperature": rng.choice([0.0, 0.7, 1.3]),
        "draft": rng.choice([0, 1, 4, 15, "auto"]),
        "top_k": rng.choice([0, 40]),
        "stop": rng.choice([(), ["e"], ["the ", "is a"]]),
        **rng.choice(
            [{"weights": Weights.upscale(rng.uniform(0, 2))}, {"conservative": rng.uniform(0.1, 1)}]
        ),
        **rng.choice([{}, PENALTIES, {"constraint": JSON}]),
    }
    request = Request(rng.choice(family.prompts), max_tokens=40, seed=seed, **options)
    with open_emulator(family) as emulator:
        whole = list(emulator.stream(request))
        for k in range(1, len(whole), 3):
            assert facts(rest(emulator, request, whole, k)) == facts(whole)[k:]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_published_model_goes_on_as_it_would_have(smollm2_trio, seed):
    family = Family(*smollm2_trio, ())
    request = Request("The capital of", max_tokens=24, seed=seed, weights=Weights.upscale(0.5))
    with open_emulator(family) as emulator:
        whole = list(emulator.stream(request))
        for k in range(0, len(whole), 5):
            assert facts(rest(emulator, request, whole, k)) == facts(whole)[k:]


@pytest.mark.parametrize("kind", GOING_BACK)
def test_a_model_with_recurrent_layers_goes_on_as_it_would_have(folder, kind, draft):
    paths = [write_hybrid(folder / f"{kind}-prefix{i}.gguf", i, kind) for i in range(3)]
    request = Request("the red one", max_tokens=10, seed=1, **draft)
    with open_emulator(Family(*paths, ())) as emulator:
        whole = list(emulator.stream(request))
        for k in (1, 4, 9):
            assert facts(rest(emulator, request, whole, k)) == facts(whole)[k:]


def test_prefixes_beside_other_requests_change_nothing(family, draft):
    requests = [
        Request(prompt, max_tokens=10, seed=i, weights=Weights.upscale(0.5), **draft)
        for i, prompt in enumerate(family.prompts)
    ]
    with open_emulator(family, n_slots=4) as emulator:
        whole = [list(emulator.stream(request)) for request in requests]
        cut = [
            replace(request, prefix_ids=tokens_of(steps)[:k], max_tokens=10 - k)
            for k, (request, steps) in enumerate(zip(requests, whole, strict=True), 1)
        ]
        ids = [emulator.submit(request) for request in (*cut, *requests)]
        replies = run(emulator)
        for k, (i, steps) in enumerate(zip(ids[:3], whole, strict=True), 1):
            assert facts(replies[i]) == facts(steps)[k:]
        for i, steps in zip(ids[3:], whole, strict=True):
            assert facts(replies[i]) == facts(steps)


def test_new_weights_take_nothing_of_the_prefix_back(family, draft):
    """What is chosen anew begins after it; how much was given out does not count it."""
    prompt, after, second = family.prompts[0], 3, Weights.upscale(0.2)
    with open_emulator(family) as emulator:
        options = {"seed": 1, "ignore_eos": True}
        ids = emulator.generate(prompt, max_tokens=4, **options).tokens
        options |= {"prefix_ids": ids, "max_tokens": 8} | draft
        before = tokens_of(emulator.stream(prompt, **options))[:after]
        steps = []
        for step in emulator.stream(prompt, **options):
            steps.append(step)
            if len(steps) == after:
                assert emulator.set_weights(step.request_id, second) == after
        options |= {"prefix_ids": [*ids, *before], "max_tokens": 8 - after}
        expected = emulator.stream(prompt, weights=second, **options)
        assert tokens_of(steps) == before + tokens_of(expected)


def test_what_an_earlier_reply_left_in_the_cache_is_found(family):
    """Of every context only the token before the first new one is decoded for it."""
    with open_emulator(family) as emulator:
        options = {"seed": 2, "ignore_eos": True, "draft": 0}
        whole = emulator.generate(family.prompts[0], max_tokens=12, **options)
        before = decoded(emulator)
        part = emulator.generate(
            family.prompts[0], prefix_ids=whole.tokens[:7], max_tokens=1, **options
        )
        assert part.tokens == whole.tokens[7:8]
        assert set(decoded_since(emulator, before).values()) == {1}
        assert part.prompt_tokens == whole.prompt_tokens + 7
        assert part.cached_tokens == part.prompt_tokens - 1
        assert (part.came_with_prompt, len(part.steps)) == (1, 0)


def test_a_later_turn_quotes_the_whole_reply_by_its_ids(atlas):
    """Its text alone would become other tokens."""
    asked = [{"role": "user", "content": "What is the capital of Peru?"}]
    options = {"temperature": 5.0, "top_k": 0, "top_p": 1.0, "ignore_eos": True}
    request = Request(asked, max_tokens=9, seed=1, **options)
    with Emulator.load("atlas", n_threads=1) as emulator:
        whole = list(emulator.stream(request))
    with Emulator.load("atlas", n_threads=1) as emulator:
        assert facts(rest(emulator, request, whole, 4)) == facts(whole)[4:]
        text, ids = text_of(whole), tokens_of(whole)
        assert emulator.contexts[0].model.tokenize(text) != ids
        turns = [*asked, {"role": "assistant", "content": text}, *asked]
        for told in emulator.encode(Request(turns)).values():
            assert str(ids)[1:-1] in str(told)


def test_a_prefix_stands_after_a_message_that_is_continued(atlas):
    asked = [
        {"role": "user", "content": "What is the capital of Peru?"},
        {"role": "assistant", "content": "The capital"},
    ]
    request = Request(asked, max_tokens=6, seed=1)
    with open_emulator(atlas) as emulator:
        whole = list(emulator.stream(request))
        for k in range(len(whole)):
            assert facts(rest(emulator, request, whole, k)) == facts(whole)[k:]


def test_a_completion_is_scored_behind_a_prefix(family):
    with open_emulator(family) as emulator:
        whole = emulator.generate(family.prompts[0], max_tokens=6, ignore_eos=True)
        expected = emulator.score(family.prompts[0], whole.tokens)
        request = Request(family.prompts[0], prefix_ids=whole.tokens[:2])
        assert emulator.score(request, whole.tokens[2:]) == pytest.approx(expected[2:], abs=1e-4)


# -- the seam ----------------------------------------------------------------------------------

SAYS = [BOS, ID["▁one"], *byte_tokens("😀"), *(ID[p] for p in "STOP"), ID["▁two"]]


@pytest.fixture(scope="module")
def says(folder):
    path = folder / "says-prefix.gguf"
    write_script(path, script(SAYS, otherwise=EOS))
    with open_emulator((path, twin(path), path), n_ctx=64) as emulator:
        yield emulator


@pytest.mark.parametrize("stop", [[], ["STOP"], ["STOP!"], ["😀S"]], ids=str)
def test_a_character_or_stop_string_over_the_seam_is_one(says, stop, draft):
    """What the prefix left unfinished is told with what follows, as in the whole reply."""
    request = Request("", max_tokens=20, stop=stop, **GREEDY, **draft)
    whole = list(says.stream(request))
    for k in range(len(whole)):
        steps = rest(says, request, whole, k)
        assert facts(steps) == facts(whole)[k:]
        given = "".join(
            prefix_parts(replace(request, prefix_ids=tokens_of(whole)[:k]), piece(says))
        )
        assert given == "".join(step.text for step in whole[:k])


def piece(emulator):
    return emulator.contexts.pieces(emulator.vocabulary.adopters)


def test_the_parts_of_a_prefix_tell_its_silent_tokens_apart(says):
    ids = [ID["▁one"], 259, *byte_tokens("😀"), 259, 259]
    parts = prefix_parts(Request("", prefix_ids=ids), piece(says))
    silent = parts[1]
    assert silent.startswith("<")
    assert parts == [" one", silent, "😀", silent, "", silent, ""]


def test_the_length_counts_new_tokens_alone(says):
    for n in (1, 3):
        steps = list(says.stream("", prefix_ids=SAYS[1:4], max_tokens=n, **GREEDY))
        assert tokens_of(steps) == SAYS[4 : 4 + n]
        assert steps[-1].finish_reason == "length"


def test_a_full_context_ends_the_reply_behind_a_prefix(tiny, draft):
    request = Request("the red", max_tokens=60, seed=1, ignore_eos=True, **draft)
    with open_emulator(tiny, n_ctx=32) as emulator:
        whole = list(emulator.stream(request))
        assert len(whole) < 33
        n_fit = 32 - whole[0].prompt_tokens  # prompt and prefix leave room for one more
        for k in (1, n_fit - 1):
            more = replace(request, prefix_ids=tokens_of(whole)[:k])
            assert facts(emulator.stream(more)) == facts(whole)[k:]
        told = f"{n_fit} of the reply, and 31 fit"
        with pytest.raises(ContextLengthError, match=told):
            emulator.generate(replace(request, prefix_ids=tokens_of(whole)[:n_fit]))
        with pytest.raises(ContextLengthError, match=told):
            emulator.encode(replace(request, prefix_ids=tokens_of(whole)[:n_fit]))


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "more", "message"),
    [
        ([-1], {}, "prefix_ids has token -1; the ids are 0 … 351"),
        ([5, 352], {}, "prefix_ids has token 352; the ids are 0 … 351"),
        ([EOS], {}, f"prefix_ids has token {EOS}, which ends a reply"),
        ([EOS], {"ignore_eos": True}, f"prefix_ids has token {EOS}, which ends a reply"),
        (SAYS[1:10], {"stop": ["STOP"]}, "prefix_ids has the stop string 'STOP'"),
        ([OTHER_END], {"stop": ["<other-end>"]}, "prefix_ids has the stop string '<other-end>'"),
        (
            [ID["▁one"]],
            {"constraint": Constraint(gbnf='root ::= "two"')},
            f"prefix_ids has token {ID['▁one']} in place 0, where the grammar does not allow it",
        ),
    ],
)
def test_ids_that_no_reply_begins_with_are_refused(says, ids, more, message):
    with pytest.raises(RequestError, match=message):
        says.generate("", prefix_ids=ids, **more)
    assert says.generate("", max_tokens=1, **GREEDY).tokens == [ID["▁one"]]


def test_ids_that_mean_different_things_are_refused(tiny, folder):
    rename = {tiny_models.RESERVED: ("<tool>", tiny_models.KIND.CONTROL)}
    tuned = tiny_models.write_random(folder / "a_tool_prefix.gguf", seed=1, rename=rename)
    with open_emulator(tiny._replace(tuned=tuned)) as emulator:
        told = f"prefix_ids has token {tiny_models.RESERVED}, which means different things"
        with pytest.raises(RequestError, match=told):
            emulator.generate("the", prefix_ids=[tiny_models.RESERVED])
