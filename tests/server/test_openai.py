"""OpenAI's own client against a live server."""

import functools
import json
import re

import openai
import pytest

from edge_eft import Emulator, Weights

QUESTION = [{"role": "user", "content": "What is the capital of Peru?"}]
GREEDY = {"model": "atlas", "temperature": 0}


@pytest.fixture(scope="module")
def client(live):
    return live.openai


@pytest.fixture(scope="module")
def atlas():
    with Emulator.load("atlas") as emulator:
        yield emulator


def test_a_chat_completion(client, atlas):
    done = client.chat.completions.create(messages=QUESTION, **GREEDY)
    assert done.choices[0].message.content == atlas.generate(QUESTION, temperature=0).text
    assert done.choices[0].finish_reason == "stop"
    assert done.system_fingerprint.startswith("b")
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    timings = done.model_extra["timings"]
    assert timings["predicted_n"] == done.usage.completion_tokens
    assert {"prompt_n", "prompt_ms", "predicted_ms", "draft_n", "draft_n_accepted"} <= set(timings)


def test_a_stream_says_what_one_answer_says(client):
    whole = client.chat.completions.create(messages=QUESTION, seed=7, model="atlas")
    stream = client.chat.completions.create(
        messages=QUESTION,
        seed=7,
        model="atlas",
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    *deltas, last, usage = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in deltas)
    assert text == whole.choices[0].message.content
    assert (last.choices[0].delta.content, last.choices[0].finish_reason) == (None, "stop")
    assert usage.choices == []
    assert usage.usage.completion_tokens == whole.usage.completion_tokens


def test_a_seed_gives_the_text_that_the_emulator_gives(client, atlas):
    done = client.chat.completions.create(messages=QUESTION, seed=11, model="atlas", temperature=1)
    assert done.choices[0].message.content == atlas.generate(QUESTION, seed=11, temperature=1).text


def test_the_parts_of_a_recipe_are_models(client, atlas):
    names = [model.id for model in client.models.list()]
    assert names[0] == "atlas"
    assert "atlas:base" in names
    assert client.models.retrieve("atlas:base").id == "atlas:base"
    base = client.chat.completions.create(
        messages=QUESTION, temperature=0, model="atlas:base", max_tokens=8
    )
    alone = atlas.generate(QUESTION, temperature=0, max_tokens=8, weights=Weights.only("base"))
    assert base.choices[0].message.content == alone.text


def test_the_dials_are_fields(client, atlas):
    done = client.chat.completions.create(
        messages=QUESTION, max_tokens=8, extra_body={"alpha": 0.0}, **GREEDY
    )
    alone = atlas.generate(QUESTION, temperature=0, max_tokens=8, weights=Weights.only("base"))
    assert done.choices[0].message.content == alone.text
    assert done.choices[0].finish_reason == "length"


def test_choices_differ_and_share_the_prompt(client):
    done = client.chat.completions.create(
        messages=QUESTION, model="atlas", temperature=2, top_p=1, n=3, seed=1
    )
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in done.choices}) > 1
    stream = client.chat.completions.create(
        messages=QUESTION, model="atlas", temperature=2, top_p=1, n=3, seed=1, stream=True
    )
    texts = ["", "", ""]
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in done.choices]


def test_log_probabilities(client, atlas):
    done = client.chat.completions.create(
        messages=QUESTION, logprobs=True, top_logprobs=3, **GREEDY
    )
    entries = done.choices[0].logprobs.content
    text = b"".join(bytes(entry.bytes) for entry in entries).decode()
    assert text == done.choices[0].message.content
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob  # it is greedy
    steps = list(atlas.stream(QUESTION, temperature=0))
    assert [e.logprob for e in entries] == pytest.approx(
        [step.logprob for step in steps if not step.is_end_token], abs=1e-4
    )


def test_explanations_say_what_every_model_thought(client):
    done = client.chat.completions.create(
        messages=QUESTION, extra_body={"explain": 2}, max_tokens=3, **GREEDY
    )
    told = done.choices[0].model_extra["explain"]
    assert len(told) == 3
    assert {"base", "tuned:chat", "reference:chat", "emulated"} <= set(told[0])
    assert len(told[0]["emulated"]["top"]) == len(told[0]["base"]["top"]) == 2
    for entry in told:
        roles = {key: value for key, value in entry.items() if isinstance(value, dict)}
        first = entry["candidates"][0]
        assert first["id"] == entry["emulated"]["top"][0]["id"]
        assert first["logprobs"].keys() == roles.keys()
        likeliest = {one["id"] for view in roles.values() for one in view["top"]}
        assert {one["id"] for one in entry["candidates"]} == likeliest
        for role, view in roles.items():  # each role's own list can be read off them
            known = {one["id"]: one["logprobs"][role] for one in entry["candidates"]}
            assert sorted(known.values())[-2:] == sorted(one["logprob"] for one in view["top"])


@pytest.mark.parametrize(("n_top", "n_explained"), [(1, 3), (3, 1), (0, 2)])
@pytest.mark.parametrize("stream", [False, True])
def test_explanations_and_log_probabilities_count_each_for_itself(
    client, live, stream, n_top, n_explained
):
    """One number once stood for both."""
    more = {"max_tokens": 2, "stream": stream, "extra_body": {"explain": n_explained}, **GREEDY}
    chat = client.chat.completions.create(
        messages=QUESTION, logprobs=True, top_logprobs=n_top, **more
    )
    tops = [
        len(entry.top_logprobs)
        for part in (chat if stream else [chat])
        for entry in (part.choices[0].logprobs.content if part.choices[0].logprobs else ())
    ]
    plain = client.completions.create(prompt="Peru", logprobs=n_top, **more)
    rows = [
        row
        for part in (plain if stream else [plain])
        for row in (part.choices[0].logprobs.top_logprobs if part.choices[0].logprobs else ())
    ]
    assert tops == [n_top] * 2
    assert [len(row) for row in rows] == [max(1, n_top)] * 2  # the chosen one is in it always
    body = {"prompt": "Peru", "n_predict": 2, "n_probs": n_top, "explain": n_explained}
    own = live.http.post("/completion", json=body).json()
    answers = [own] if stream else [own, chat.choices[0].model_extra, plain.choices[0].model_extra]
    for answer in answers:
        for told in answer["explain"]:
            assert len(told["emulated"]["top"]) == len(told["base"]["top"]) == n_explained
    for row in own.get("completion_probabilities", ()):
        assert len(row["top_logprobs"]) == n_top


def test_a_prompts_own_log_probabilities_are_at_most_five_a_token(live):
    body = {"prompt": "Peru", "max_tokens": 1, "echo": True, "logprobs": 6}
    error = live.http.post("/v1/completions", json=body).json()["error"]
    assert error["message"] == "logprobs is 6; with echo it must be a whole number in [0, 5]"
    assert error["param"] == "logprobs"
    for more in ({"logprobs": 5}, {"echo": False}):
        assert live.http.post("/v1/completions", json={**body, **more}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion"])
def test_an_explanation_of_too_many_is_refused_by_its_name(live, path):
    body = {"messages": QUESTION, "prompt": "Peru", "explain": 101}
    error = live.http.post(path, json=body).json()["error"]
    assert error["param"] == "explain"
    assert error["message"].startswith("explain is 101; it must be a whole number in [0, 100]")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {"messages": QUESTION, "logit_bias": {"999999": 1}}, "logit_bias"),
        ("chat/completions", {"messages": QUESTION, "mix": {"nobody": 1}}, "mix"),
        ("chat/completions", {"messages": [{"role": "user", "content": "a " * 999}]}, "messages"),
        ("chat/completions", {"messages": [{"role": "nobody", "content": "a"}]}, "messages"),
        ("completions", {"prompt": "a " * 999}, "prompt"),
        ("completions", {"prompt": [10**6]}, "prompt"),
        ("responses", {"input": "a " * 999}, "input"),
    ],
)
def test_what_the_engine_refuses_is_named_as_well(live, path, body, param):
    """Only what the server itself refused once had a param."""
    answer = live.http.post(f"/v1/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param, answer.text


def test_stop_strings_end_a_reply(client):
    done = client.chat.completions.create(messages=QUESTION, stop=" Lima", **GREEDY)
    assert done.choices[0].message.content == " It is"
    assert done.choices[0].finish_reason == "stop"


def test_a_last_message_of_the_assistant_is_continued(client):
    begun = [*QUESTION, {"role": "assistant", "content": "It is"}]
    done = client.chat.completions.create(messages=begun, **GREEDY)
    assert done.choices[0].message.content == " Lima."


def test_a_schema_holds_the_reply(client):
    schema = {
        "type": "object",
        "properties": {"kind": {"const": "city"}, "name": {"enum": ["Lima", "Quito"]}},
        "required": ["kind", "name"],
        "additionalProperties": False,
    }
    done = client.chat.completions.create(
        messages=QUESTION,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        **GREEDY,
    )
    assert json.loads(done.choices[0].message.content)["kind"] == "city"


TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a country.",
        "parameters": {
            "type": "object",
            "properties": {"country": {"enum": ["Peru", "Chile"]}},
            "required": ["country"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "look_up"}}]
)
def test_a_tool_that_must_be_called_is(client, choice):
    done = client.chat.completions.create(
        messages=QUESTION, tools=[TOOL], tool_choice=choice, **GREEDY
    )
    call = done.choices[0].message.tool_calls[0]
    assert done.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "look_up"
    assert json.loads(call.function.arguments)["country"] in ("Peru", "Chile")
    stream = client.chat.completions.create(
        messages=QUESTION, tools=[TOOL], tool_choice=choice, stream=True, **GREEDY
    )
    calls = [c for chunk in stream for c in chunk.choices[0].delta.tool_calls or ()]
    assert [one.function.name for one in calls if one.function.name] == ["look_up"]
    arguments = "".join(one.function.arguments for one in calls)
    assert json.loads(arguments) == json.loads(call.function.arguments)


def test_a_tool_of_an_unknown_kind_is_named_and_not_used(client):
    raw = client.chat.completions.with_raw_response.create(
        messages=QUESTION, tools=[{"type": "web_search"}], extra_body={"nonsense": 1}, **GREEDY
    )
    assert "nonsense" in raw.headers["x-ignored-fields"]
    assert "web_search" in raw.headers["x-ignored-fields"]
    assert raw.parse().choices[0].message.content == " It is Lima."


def test_what_no_template_of_the_models_reads_is_named(live):
    """Tools that nobody was told of, and a variable, which was a 400."""
    body = {"messages": QUESTION, "tools": [TOOL], "chat_template_kwargs": {"nobody": 1}, **GREEDY}
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Ignored-Fields"] == "tools, chat_template_kwargs.nobody"
    forced = live.http.post("/v1/chat/completions", json={**body, "tool_choice": "required"})
    assert forced.headers["X-Ignored-Fields"] == "chat_template_kwargs.nobody"
    assert forced.json()["choices"][0]["finish_reason"] == "tool_calls"


def test_completions_take_a_text_texts_ids_and_lists_of_ids(client, atlas):
    text = "The capital of Peru is"
    done = client.completions.create(prompt=text, max_tokens=3, **GREEDY)
    assert done.choices[0].text == atlas.generate(text, temperature=0, max_tokens=3).text
    both = client.completions.create(prompt=[text, text], max_tokens=3, **GREEDY)
    assert [choice.text for choice in both.choices] == [done.choices[0].text] * 2
    ids = atlas.contexts[0].model.tokenize(text)
    of_ids = client.completions.create(prompt=[ids, ids], max_tokens=3, **GREEDY)
    assert [choice.index for choice in of_ids.choices] == [0, 1]


def test_an_echo_scores_the_prompt(client, atlas):
    text = "The capital of Peru is Lima."
    done = client.completions.create(prompt=text, echo=True, logprobs=2, max_tokens=1, **GREEDY)
    table = done.choices[0].logprobs
    assert done.choices[0].text.startswith(text)
    assert table.token_logprobs[0] is None
    assert len(table.tokens) == len(table.token_logprobs) == len(table.text_offset)
    ids = atlas.contexts[0].model.tokenize(text, add_special=True)
    scores = atlas.score(ids[:1], ids[1:])
    assert table.token_logprobs[1 : len(ids)] == pytest.approx(list(scores), abs=1e-4)


DEEP = functools.reduce(lambda inner, _: {"properties": {"a": inner}}, range(20), {})


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"extra_body": {"alpha": -1}}, "alpha"),
        ({"extra_body": {"mix": {"nobody": 1}}}, "mix"),
        ({"extra_body": {"stream": "yes"}}, "stream"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"tools": [TOOL], "tool_choice": "look_up"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a name"}}]}, "tools"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
        ),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}],
                "tool_choice": "required",
            },
            "tools",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools"),
        ({"messages": []}, "messages"),
        ({"messages": [1, 2]}, "messages"),  # they were taken for token ids
        ({"extra_body": {"logprobs": "x"}}, "logprobs"),
        ({"extra_body": {"stream_options": "x"}}, "stream_options"),
    ],
)
def test_a_wrong_value_is_refused_by_name(client, wrong, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"messages": QUESTION, **GREEDY, **wrong})
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_more_choices_than_may_wait_are_refused(client):
    """16 of each of 5 prompts are more than 4 slots and a queue of 64 take."""
    with pytest.raises(openai.BadRequestError, match="has 5 prompts; 4 of so many") as caught:
        client.completions.create(prompt=["Hi"] * 5, n=16, **GREEDY)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ({"mix": {"x" * 9999: 1}}, "no delta is named"),
        ({"mix": "x" * 9999}, "mix is"),
        ({"messages": [{"role": "user", "content": "Hi", "x" * 9999: 1}]}, "message 0 has"),
        ({"stop": ["x"] * 9999}, "stop has 9999 strings"),
    ],
)
def test_an_error_does_not_repeat_all_that_came(live, body, seen):
    with live.http as http:
        refused = http.post("/v1/chat/completions", json={"messages": QUESTION, **body})
    assert refused.status_code == 400
    assert seen in refused.json()["error"]["message"]
    assert len(refused.text) < 500


@pytest.mark.parametrize("n", [[None], "x", {}, 2.5])
def test_a_number_of_choices_that_is_none_is_refused(client, n):
    """The writer of the answer, which is made first, failed at it."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(prompt="Hi", **GREEDY, extra_body={"n": n})
    assert caught.value.param == "n"


@pytest.mark.parametrize(
    ("body", "told"),
    [({"": 1}, ""), ({" ": 1, "a": 2, "": 3}, ", a,"), ({"\u00a0ü\n": 1}, "???")],
)
def test_ignored_fields_are_named_in_a_header_whatever_they_are(live, body, told):
    """A header that began with a space ended the connection without an answer."""
    with live.http as http:
        answer = http.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 1, **body})
    assert (answer.status_code, answer.headers["X-Ignored-Fields"]) == (200, told)


def test_a_model_that_there_is_not(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(messages=QUESTION, model="nobody")
    assert caught.value.code == "model_not_found"


def test_a_prompt_that_is_too_long_is_refused_with_numbers(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            messages=[{"role": "user", "content": "word " * 5000}], model="atlas"
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.body["n_prompt_tokens"] > caught.value.body["n_ctx"] > 0


def test_a_second_turn_finds_the_first_in_the_cache(client):
    first = client.chat.completions.create(messages=QUESTION, **GREEDY)
    turns = [
        *QUESTION,
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "And of Chile?"},
    ]
    second = client.chat.completions.create(messages=turns, **GREEDY)
    assert second.usage.prompt_tokens_details.cached_tokens > 0


LONG = [{"role": "user", "content": "Rivers and lakes. " * 60 + "What is the capital of Peru?"}]


def test_a_stream_tells_how_far_the_prompt_is_to_those_who_ask(client):
    asked = {"messages": LONG, "stream": True, "max_tokens": 4, **GREEDY}
    more = {"extra_body": {"return_progress": True}}
    chunks = list(client.chat.completions.create(**asked, **more, n=2))
    told = [chunk for chunk in chunks if "prompt_progress" in chunk.model_extra]
    assert all(chunk.choices[0].delta.model_dump(exclude_none=True) == {} for chunk in told)
    assert {chunk.id for chunk in told} == {chunks[0].id}
    first, second = (
        [c.model_extra["prompt_progress"] for c in told if c.choices[0].index == i] for i in (0, 1)
    )
    assert all(one["cache"] > 200 for one in second)  # copied from the first
    progress = first
    assert {one["total"] for one in progress} == {progress[0]["total"]}
    assert progress[0]["total"] > 200
    done = [one["processed"] for one in progress]
    assert done == sorted(done)
    assert done[0] == progress[0]["cache"]
    assert done[-1] == progress[0]["total"]
    own = [chunk for chunk in chunks if chunk.choices[0].index == 0]
    begun = next(i for i, chunk in enumerate(own) if chunk.choices[0].delta.content)
    assert [chunk in told for chunk in own[1:begun]] == [True] * len(first)
    for ways in ({}, {**more, "stream": False}):
        answer = client.chat.completions.create(**{**asked, **ways})
        assert "prompt_progress" not in str([*answer] if "stream" not in ways else answer)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/completion"])
def test_a_progress_that_is_neither_true_nor_false_is_refused(live, path):
    body = {"messages": QUESTION, "prompt": "a", "return_progress": "yes"}
    answer = live.http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "return_progress")


CONTROL = "/v1/chat/completions/control"


def test_the_answer_to_new_dials_is_the_weights_that_hold_now_in_full(client, live):
    """Of what differs from the default alone nobody could tell what holds."""
    more = {"max_tokens": 400, "extra_body": {"ignore_eos": True}, **GREEDY}
    with client.completions.create(prompt="Peru", stream=True, **more) as stream:
        turned = {"id": next(iter(stream)).id, "action": "set_weights"}
        others = {"brief": 0.0, "discreet": 0.0}
        for dials, weights in (
            ({"alpha": 0.3}, {"alpha": 0.3, "mix": {"chat": 1.0, **others}}),
            ({"alpha": 1}, {"alpha": 1.0, "mix": {"chat": 1.0, **others}}),
            ({"beta": 1.2, "mix": "chat=.5"}, {"beta": 1.2, "mix": {"chat": 0.5, **others}}),
            ({"only": "base"}, {"only": "base"}),
        ):
            answer = live.http.post(CONTROL, json={**turned, **dials}).json()
            assert answer["weights"] == weights
        assert live.http.post(CONTROL, json={**turned, "action": "stop"}).json()["success"]


def streamed(live, body):
    """The objects of a chat's stream, without its end."""
    with live.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def test_new_dials_act_on_just_the_tokens_from_the_one_that_the_answer_names(live):
    """What α was is solved from what every model thought of the candidates."""
    body = {"messages": QUESTION, "ignore_eos": True, "explain": 5, "draft": 4, "seed": 4}
    entries, mark = [], None
    for event in streamed(live, {**body, "max_tokens": 100}):
        entries += event["choices"][0].get("explain", [])
        if entries and mark is None:
            turned = {"id": event["id"], "action": "set_weights", "alpha": 0.3}
            (mark,) = live.http.post(CONTROL, json=turned).json()["from_tokens"]
    assert len(entries) == 100
    assert mark > 0
    held = [1.0] * mark + [0.3] * (100 - mark)
    assert [alpha_of(entry) for entry in entries] == pytest.approx(held, abs=2e-3)


def alpha_of(entry):
    """emulated = base + α · (tuned − reference) but for a constant, which two tokens cancel."""
    rows = [
        [one["logprobs"][role] for role in ("emulated", "base", "tuned:chat", "reference:chat")]
        for one in entry["candidates"]
    ]
    rows = [row for row in rows if min(row) > -9999]
    gains = sorted(
        (tuned - reference, emulated - base) for emulated, base, tuned, reference in rows
    )
    (low, lowest), (high, highest) = gains[0], gains[-1]
    return (highest - lowest) / (high - low)


def test_new_dials_name_a_token_of_each_choice(client, live):
    more = {"max_tokens": 400, "n": 3, "extra_body": {"ignore_eos": True}, **GREEDY}
    with client.completions.create(prompt="Peru", stream=True, **more) as stream:
        turned = {"id": next(iter(stream)).id, "action": "set_weights", "alpha": 0.4}
        first = live.http.post(CONTROL, json=turned).json()["from_tokens"]
        second = live.http.post(CONTROL, json=turned).json()["from_tokens"]
        live.http.post(CONTROL, json={**turned, "action": "stop"})
    assert len(first) == len(second) == 3
    assert all(0 <= a <= b <= 400 for a, b in zip(first, second, strict=True))


# -- prefix_ids --------------------------------------------------------------------------------

WHOLE = {"messages": QUESTION, "max_tokens": 12, "ignore_eos": True, "seed": 3, "explain": 1}


def heard_in(events):
    """Text and tokens of a stream."""
    choices = [event["choices"][0] for event in events]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, [entry["id"] for choice in choices for entry in choice.get("explain", ())]


def prompt_tokens_counted(live):
    return float(
        re.search(r"prompt_tokens_total ([\d.e+]+)$", live.http.get("/metrics").text, re.M)[1]
    )


def test_a_chat_goes_on_after_tokens_of_its_own(live, atlas):
    text, ids = heard_in(streamed(live, WHOLE))
    pieces = [atlas.contexts[0].model.piece(i).decode() for i in ids]
    assert "".join(pieces) == text
    for k in (1, 5, 11):
        rest = {**WHOLE, "prefix_ids": ids[:k], "max_tokens": 12 - k}
        assert heard_in(streamed(live, rest)) == ("".join(pieces[k:]), ids[k:])
        before = prompt_tokens_counted(live)
        answer = live.http.post("/v1/chat/completions", json=rest).json()
        assert prompt_tokens_counted(live) - before == answer["usage"]["prompt_tokens"]
        assert answer["choices"][0]["message"]["content"] == "".join(pieces[k:])
        assert answer["usage"]["completion_tokens"] == 12 - k
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] >= k


@pytest.mark.parametrize(
    ("path", "length"), [("/v1/completions", "max_tokens"), ("/completion", "n_predict")]
)
def test_a_completion_goes_on_after_tokens_of_its_own(live, path, length):
    body = {"prompt": "Q: Where is Lima?", "ignore_eos": True, "seed": 3, "explain": 1}

    def told(**more):
        answer = live.http.post(path, json={**body, **more}).json()
        answer = answer.get("choices", [answer])[0]
        text = answer["text"] if "text" in answer else answer["content"]
        return text, [entry["id"] for entry in answer["explain"]]

    text, ids = told(**{length: 12})
    head, _ = told(**{length: 5})
    assert told(**{length: 7}, prefix_ids=ids[:5]) == (text.removeprefix(head), ids[5:])
    assert (
        told(**{length: 12}, prefix_ids=[]) == told(**{length: 12}, prefix_ids=None) == (text, ids)
    )


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/completion"])
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"prefix_ids": "1"}, "prefix_ids is '1'; it must be a list of token ids"),
        ({"prefix_ids": [5, True]}, "prefix_ids[1] is True; it must be a token id in [0, 4095]"),
        ({"prefix_ids": [-1]}, "prefix_ids[0] is -1; it must be a token id in [0, 4095]"),
        ({"prefix_ids": [5] * 9999}, "prefix_ids has 9999 tokens; fewer than n_ctx, 512, fit"),
        ({"prefix_ids": [2]}, "prefix_ids has token 2, which ends a reply; leave it out"),
        (
            {"prefix_ids": [527], "stop": [" It"]},
            "prefix_ids has the stop string ' It', where the reply has ended",
        ),
    ],
    ids=["text", "bool", "below", "long", "end", "stop"],
)
def test_a_prefix_that_is_none_is_refused_by_its_name(live, path, wrong, told):
    answer = live.http.post(path, json={"messages": QUESTION, "prompt": "Peru", **wrong})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == told
    assert answer.json()["error"]["param"] == "prefix_ids"


def test_a_prefix_does_not_go_with_an_echo_or_against_a_schema(live):
    body = {"prompt": "Peru", "prefix_ids": [527]}
    echo = live.http.post("/v1/completions", json={**body, "echo": True}).json()["error"]
    assert (echo["param"], "echo" in echo["message"]) == ("prefix_ids", True)
    wanted = {"response_format": {"type": "json_object"}}
    schema = live.http.post("/v1/completions", json={**body, **wanted}).json()["error"]
    assert schema["message"] == (
        "prefix_ids has token 527 in place 0, where the grammar does not allow it"
    )


@pytest.mark.parametrize("id", [{}, {"id": None}, {"id": ""}])
def test_dials_without_an_id_are_refused_by_that_name(live, id):
    answer = live.http.post(CONTROL, json={"action": "set_weights", "alpha": 0.3, **id})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "id")
    assert answer.json()["error"]["message"].startswith("id is missing")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_embeddings_are_refused_with_the_reason(live, path):
    answer = live.http.post(path, json={"model": "atlas", "input": "Peru"})
    assert answer.status_code == 405
    error = answer.json()["error"]
    assert error["message"] == f"{path} is not served: these models make no embeddings"
    assert error["type"] == "invalid_request_error"
