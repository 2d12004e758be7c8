"""llama-server's own interface: what a body comes to mean, answers in its words, a live server."""

import asyncio
import json
import math

import pytest
from helpers.scripted_replies import ATLAS, Engine, asked, events, generating, steps, whole

from edge_eft.server import llama_server
from edge_eft.server.api_error import ApiError
from edge_eft.server.llama_server import LlamaWriter
from edge_eft.server.reply import PromptProgress
from edge_eft.server.tokens import joined_tokens

PROMPT = "The capital of Peru is"


def request(**body):
    return asked(llama_server, {"prompt": "x", **body}).requests[0]


# -- requests ------------------------------------------------------------------------------


def test_texts_in_a_list_with_ids_are_tokenized_and_only_the_first_gets_a_bos():
    assert request(prompt=[7, "Hi", 9]).prompt == [7, 72, 105, 9]
    assert request(prompt=["Hi", 9, "a"]).prompt == [1, 72, 105, 9, 97]
    assert request(prompt={"prompt_string": "Hi"}).prompt == "Hi"


def test_a_list_without_ids_is_a_list_of_prompts():
    ask = asked(llama_server, {"prompt": ["a", [5, 6], [5, "a"]]})
    assert [one.prompt for one in ask.requests] == ["a", [5, 6], [5, 97]]


def test_too_many_prompts_are_refused_before_any_is_tokenized():
    with pytest.raises(ApiError, match="the call has 99 prompts"):
        asked(llama_server, {"prompt": [["a", None]] * 99})


def test_llama_servers_numbers_have_their_meaning():
    given = request(n_predict=-2, temperature=-1, top_k=-1, repeat_penalty=1.5, stop=["", "a"])
    assert (given.max_tokens, given.temperature, given.top_k) == (1000, 0, 0)
    assert (given.repetition_penalty, given.stop) == (1.5, ("a",))
    for name in ("top_k", "n_predict"):
        with pytest.raises(ApiError, match=f"{name} is -1.5"):
            request(**{name: -1.5})


@pytest.mark.parametrize("bias", [[[7, 2], ["Hi", False]], {"7": 2, "Hi": False}])
def test_a_bias_is_of_ids_and_of_the_tokens_of_texts(bias):
    assert request(logit_bias=bias).logit_bias == {7: 2, 72: -math.inf, 105: -math.inf}


def test_a_grammar_or_a_schema_holds_the_reply():
    assert request(grammar='root ::= "a"').constraint.gbnf == 'root ::= "a"'
    assert request(json_schema={"type": "object"}).constraint.json_schema == {"type": "object"}
    assert request(grammar="").constraint is None
    with pytest.raises(ApiError, match="either grammar or json_schema"):
        request(grammar='root ::= "a"', json_schema={})


def test_an_error_names_the_field_as_the_client_does():
    with pytest.raises(ApiError, match=r"^repeat_penalty is 'y'") as error:
        request(repeat_penalty="y")
    assert error.value.param == "repeat_penalty"


def test_what_changes_nothing_is_named():
    body = {"prompt": "x", "id_slot": 2, "cache_prompt": False, "mirostat": 2}
    assert set(asked(llama_server, body).ignored) == {"id_slot", "cache_prompt", "mirostat"}
    assert asked(llama_server, {"prompt": "x", "id_slot": -1, "cache_prompt": True}).ignored == ()


# -- answers -------------------------------------------------------------------------------


def test_the_parts_of_a_stream_and_its_end():
    *parts, last = events(
        LlamaWriter("1", "atlas", {"stream": True}), generating(steps(["a", "\nb"]))
    )
    assert [part["content"] for part in parts] == ["a", "\nb"]
    assert [part["tokens"] for part in parts] == [[0], [1]]
    assert [part["tokens_predicted"] for part in parts] == [1, 2]
    assert not any(part["stop"] for part in parts)
    assert (last["stop"], last["content"], last["tokens"]) == (True, "", [])
    assert (last["has_new_line"], last["tokens_predicted"], last["tokens_cached"]) == (True, 2, 5)


@pytest.mark.parametrize(
    ("given", "kind", "word"),
    [
        (generating(steps(["a"])), "eos", ""),
        (generating(steps(["a"], finish_reason="length", ends=False)), "limit", ""),
        (generating(steps(["a", ""], ["a", "END"], ends=False, stop_string="END")), "word", "END"),
    ],
)
def test_why_it_stopped(given, kind, word):
    answer = whole(LlamaWriter("1", "atlas", {"return_tokens": True}), given)
    assert (answer["content"], answer["stop_type"], answer["stopping_word"]) == ("a", kind, word)
    assert answer["tokens"][0] == 0
    assert answer["truncated"] is False


def test_a_stream_tells_how_far_the_prompt_is_and_one_answer_does_not():
    read = [PromptProgress(90, 10, done, 1.5) for done in (10, 90)]
    first, second, *rest = events(
        LlamaWriter("1", "atlas", {"stream": True}), generating(steps(["a"]), progress=read)
    )
    assert first["prompt_progress"] == {"total": 90, "cache": 10, "processed": 10, "time_ms": 1.5}
    assert second["prompt_progress"]["processed"] == 90
    assert (first["content"], first["tokens"], first["stop"]) == ("", [], False)
    assert not [part for part in rest if "prompt_progress" in part]
    body = {"prompt": "x", "return_progress": True}
    assert asked(llama_server, {**body, "stream": True}).tells_progress
    assert not asked(llama_server, body).tells_progress


def test_fields_are_selected_by_paths():
    body = {"response_fields": ["content", "timings/cache_n", "content/x", "nothing"]}
    assert whole(LlamaWriter("1", "atlas", body), generating(steps(["a"]))) == {
        "content": "a",
        "timings/cache_n": 5,
    }


def test_no_tokens_asked_for_are_none_told():
    answer = whole(LlamaWriter("1", "atlas", {"n_predict": 0}), generating(steps(["a"])))
    assert (answer["content"], answer["tokens_predicted"]) == ("", 0)


def test_settings_hold_nothing_that_anyone_wrote():
    given = asked(llama_server, {"prompt": "secret", "stop": ["secret"]}).requests[0]
    assert "secret" not in json.dumps(llama_server.settings(given.to_dict()))


def test_what_is_neither_text_nor_id_in_tokens_is_refused():
    with pytest.raises(ApiError, match=r"content\[1\] is None"):
        asyncio.run(joined_tokens(Engine(), ATLAS, ["a", None], "content"))


# -- a live server -------------------------------------------------------------------------


def test_a_completion_equals_openais_and_its_stream(live):
    body = {"prompt": PROMPT, "temperature": 0, "max_tokens": 12}
    with live.http as http:
        other = http.post("/v1/completions", json={**body, "logprobs": 2}).json()["choices"][0]
        own = {**body, "n_probs": 2, "return_tokens": True}
        answer = http.post("/completion", json=own).json()
        lines = http.post("/completion", json={**own, "stream": True}).text.strip().split("\n\n")
    parts = [json.loads(line.removeprefix("data: ")) for line in lines]  # and not a [DONE]
    assert answer["content"] == other["text"] == "".join(part["content"] for part in parts)
    assert answer["tokens"] == [token for part in parts for token in part["tokens"]]
    rows = answer["completion_probabilities"]
    assert [row["id"] for row in rows] == answer["tokens"]
    told = other["logprobs"]["token_logprobs"][: len(rows)]
    assert [row["logprob"] for row in rows] == pytest.approx(told, abs=1e-4)
    assert all(len(row["top_logprobs"]) == 2 for row in rows)


def test_several_prompts_have_several_answers(live):
    with live.http as http:
        body = {"prompt": [PROMPT, "Lima is"], "n_predict": 3}
        assert [one["index"] for one in http.post("/completion", json=body).json()] == [0, 1]


def test_the_reply_obeys_a_grammar(live):
    with live.http as http:
        body = {"prompt": PROMPT, "grammar": 'root ::= "yes" | "no"', "n_predict": 8}
        answer = http.post("/completion", json=body).json()
    assert answer["content"] in ("yes", "no")
    assert answer["stop_type"] == "eos"


def test_tokens_and_texts_go_round(live):
    with live.http as http:
        tokens = http.post("/tokenize", json={"content": "Hällo 😀"}).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": tokens}).json() == {"content": "Hällo 😀"}
        body = {"content": "Hällo 😀", "with_pieces": True, "add_special": True}
        rows = http.post("/tokenize", json=body).json()["tokens"]
        pieces = [p.encode() if isinstance(p := row["piece"], str) else bytes(p) for row in rows]
        assert [row["id"] for row in rows][1:] == tokens
        assert b"".join(pieces[1:]).decode() == "Hällo 😀"


def test_what_is_no_token_or_too_much_at_once_is_refused(live):
    with live.http as http:
        for path, body, told in (
            ("/detokenize", {"tokens": [5, 10**9]}, r"tokens[1] is 1000000000; it must be a token"),
            ("/detokenize", {"tokens": [True]}, "tokens[0] is True"),
            ("/detokenize", {"tokens": [5] * 200_000}, "tokens has 200,000 bytes or ids"),
            ("/tokenize", {"content": ["a", -1]}, "content[1] is -1; it must be a text or a token"),
            ("/tokenize", {"content": "a" * 200_000}, "content has 200,000 bytes or ids; 131,072"),
            ("/tokenize", {"content": "a", "add_special": 1}, "add_special is 1"),
            ("/tokenize", {"content": 7}, "content is 7"),
            ("/completion", {"prompt": ["a", 10**9]}, "prompt[1] is 1000000000"),
            ("/completion", {"prompt": ["a b " * 50_000, 5]}, "the prompt is at least"),
            ("/completion", {"prompt": ["a", *[5] * 2000]}, "the prompt is at least 2000 tokens"),
            ("/completions", {"prompt": [5] * 2000}, "the prompt is at least 2000 tokens"),
            ("/completions", {"prompt": "a b " * 50_000}, "the prompt is at least"),
        ):
            error = http.post(path, json=body).json()["error"]
            assert error["message"].startswith(told), (path, error)
            assert error["param"] in (told.split("[")[0].split()[0], "prompt", None)


def test_a_template_is_applied(live):
    with live.http as http:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        prompt = http.post("/apply-template", json=body).json()["prompt"]
        props = http.get("/props").json()
        alone = http.post("/apply-template", json={**body, "alpha": 0}).json()["prompt"]
    assert prompt == alone == "<s>Q: Hi\nA:"
    assert "'Q: '" in props["chat_template"]
    assert (props["bos_token"], props["modalities"]["vision"]) == ("<s>", False)


def test_the_slots_tell_what_is_done_and_not_what_is_said(live):
    body = {"prompt": "Zanzibar", "stop": ["qZq"], "ignore_eos": True, "stream": True}
    with live.http as http, live.http as other:
        n_slots = other.get("/props").json()["total_slots"]
        with http.stream("POST", "/completion", json=body) as answer:
            lines = answer.iter_lines()  # httpx hangs up when nobody holds it
            next(lines)
            slots = other.get("/slots")
    busy = [slot for slot in slots.json() if slot["is_processing"]]
    assert [slot["params"]["ignore_eos"] for slot in busy] == [True]
    assert len(slots.json()) == n_slots
    assert "Zanzibar" not in slots.text
    assert "qZq" not in slots.text


FORBIDDEN = [[token, False] for token in range(4096)]


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": FORBIDDEN},
        {"logit_bias": FORBIDDEN[:-1], "grammar": 'root ::= "Peru"'},
        {"alpha": 1e300},
    ],
)
def test_options_that_leave_no_token_are_the_clients_fault(live, options):
    with live.http as http:
        answer = http.post("/completion", json={"prompt": "a", **options})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("no token is left")
