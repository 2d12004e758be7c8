"""llama-server's own completion: a body → an `Ask`, and its chunks in llama-server's words.

The shapes are those of llama.cpp's tools/server/README.md and server-task.cpp.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..engine.constraint import Constraint
from ..engine.reply import Step, TokenLogprob
from ..engine.request import MAX_TOP, Request
from ..errors import EdgeEftError
from ..text.reply_parser import Content
from .answers import Writer
from .api_error import ApiError
from .engine import Engine
from .explained import explained
from .fields import SAMPLING, Fields, said_as
from .generation import Ask, Chunk, Done, Generating
from .served import NamedModel
from .tokens import check_count, check_fits, joined_tokens, prefix_ids

NAMES = {"repeat_penalty": "repetition_penalty", "n_predict": "max_tokens"}
KNOWN = (
    *(name for name in SAMPLING if name not in ("n", "stream_options", "user")),
    *("prompt", "n_probs", "cache_prompt", "id_slot", "return_tokens", "response_fields"),
    *("grammar", "json_schema", "return_progress"),
)
_LOWEST = -3.4028234663852886e38  # llama-server's for what is impossible: JSON has no −inf


async def ask(body: Mapping[str, Any], engine: Engine, model: NamedModel) -> Ask:
    """Return what a body asks for; raises as `openai_chat.ask`."""
    with said_as({theirs: ours for theirs, ours in NAMES.items() if theirs in body}):
        fields = Fields(_plain(body), KNOWN)
        facts = await engine.ready(model.recipe)
        given = _prompts(fields)
        check_count(len(given), engine.n_slots + engine.queue)
        prompts = [await _prompt(engine, model, one, fields) for one in given]
        longest = fields.max_tokens(("max_tokens",), facts["n_ctx"])
        n_probs = fields.count("n_probs", 0, MAX_TOP, 0)
        more: dict[str, Any] = {"max_tokens": longest, "top_logprobs": n_probs}
        more["prefix_ids"] = prefix_ids(fields, facts)
        if (constraint := _constraint(fields)) is not None:
            more["constraint"] = constraint
        if "logit_bias" in body:
            more["logit_bias"] = await _bias(engine, model, body["logit_bias"])
        _check_words(fields)
        requests = [one for prompt in prompts for one in fields.choices(prompt, model, 1, **more)]
        return Ask(
            model,
            tuple(requests),
            ignored=tuple(fields.ignored),
            tells_progress=fields.tells_progress(),
        )


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with the names and numbers that `Fields` has for the same."""
    plain = {name: value for name, value in body.items() if name != "logit_bias"}
    for theirs, ours in NAMES.items():
        if plain.get(theirs) is not None:
            plain[ours] = plain[theirs]
        plain.pop(theirs, None)
    if _is_below_zero(plain.get("max_tokens")):
        plain["max_tokens"] = -1
    if plain.get("max_tokens") == 0 and not isinstance(plain["max_tokens"], bool):
        plain["max_tokens"] = 1  # of which nothing is told: the prompt is to be in the cache
    if _is_below_zero(plain.get("top_k")):
        plain["top_k"] = 0
    if _is_below_zero(plain.get("temperature"), int | float):
        plain["temperature"] = 0
    if isinstance(stop := plain.get("stop"), list):
        plain["stop"] = [text for text in stop if text != ""]
    return plain


def _is_below_zero(value: Any, kind: Any = int) -> bool:
    """Return whether a field is a negative number, which stands for some limit that is off."""
    return isinstance(value, kind) and value < 0


def _check_words(fields: Fields) -> None:
    """Check what only the writer reads, and note what is accepted and changes nothing."""
    fields.flag("return_tokens")
    wanted = fields.get("response_fields", list, "a list of names", [])
    if not all(isinstance(name, str) for name in wanted):
        raise fields.wrong("response_fields", "it must be a list of names")
    if fields.get("id_slot", int, "a whole number", -1) != -1:
        fields.ignored.append("id_slot")
    if fields.get("cache_prompt", bool, "true or false", True) is False:
        fields.ignored.append("cache_prompt")


def _prompts(fields: Fields) -> list[Any]:
    """Return the prompts of a body; a list that holds a token id is one prompt."""
    prompt = fields.get("prompt", str | list | dict, "a text, token ids, or a list of them")
    if prompt is None or prompt == []:
        raise ApiError(400, "prompt is missing; give a text or token ids", param="prompt")
    if isinstance(prompt, list) and not any(type(part) is int for part in prompt):
        return prompt
    return [prompt]


async def _prompt(engine: Engine, model: NamedModel, prompt: Any, fields: Fields) -> Any:
    """Return one prompt as a `Request` has it: a text, or token ids."""
    if isinstance(prompt, dict):
        if prompt.get("multimodal_data"):
            raise fields.wrong("prompt", "these models read text alone")
        prompt = prompt.get("prompt_string")
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list) or not prompt:
        raise fields.wrong("prompt", "it must be a text, token ids, or a list of either")
    n_ids = sum(type(part) is int for part in prompt)
    check_fits(n_ids, await engine.ready(model.recipe))
    return await joined_tokens(
        engine, model, prompt, "prompt", add_special=True, parse_special=True, is_prompt=True
    )


def _constraint(fields: Fields) -> Constraint | None:
    grammar = fields.get("grammar", str, "a grammar in GBNF")
    schema = fields.get("json_schema", dict, "a JSON schema")
    if grammar and schema is not None:
        raise fields.wrong("grammar", "give either grammar or json_schema")
    if not grammar and schema is None:
        return None
    try:
        return Constraint(gbnf=grammar) if grammar else Constraint(json_schema=schema)
    except EdgeEftError as error:
        name = "grammar" if grammar else "json_schema"
        raise ApiError(400, f"{name}: {error}", param=name) from None


async def _bias(engine: Engine, model: NamedModel, given: Any) -> dict[int, float]:
    """Return token id → bias of [[id or text, number or false], …], or of an object of these."""
    if given is None:
        return {}
    pairs = list(given.items()) if isinstance(given, dict) else given
    wanted = "it must be a list of [token id or text, number or false]"
    if not isinstance(pairs, list):
        raise ApiError(400, f"logit_bias is {given!r:.60}; {wanted}", param="logit_bias")
    bias: dict[int, float] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ApiError(400, f"logit_bias has {pair!r:.60}; {wanted}", param="logit_bias")
        token, value = pair
        if isinstance(given, dict) and token.isascii() and token.isdigit() and len(token) < 10:
            token = int(token)
        if type(token) is not int and not isinstance(token, str):
            raise ApiError(400, f"logit_bias has {pair!r:.60}; {wanted}", param="logit_bias")
        tokens = [token] if isinstance(token, int) else []
        if isinstance(token, str):
            tokens = await joined_tokens(engine, model, [token], "logit_bias")
        bias |= dict.fromkeys(tokens, -math.inf if value is False else value)
    return bias


# -- answers -------------------------------------------------------------------------------


class LlamaWriter(Writer):
    """Writes chunks as llama-server's completions."""

    last = None  # llama-server has no end mark here

    def __init__(self, id: str, model: str, body: Mapping[str, Any]) -> None:
        super().__init__(id, model, body)
        self._stream = bool(body.get("stream"))
        self._n_probs = body.get("n_probs") or 0
        self._with_tokens = bool(body.get("return_tokens"))
        self._n_explained = body.get("explain") or 0
        self._no_reply = (
            next((body[name] for name in _LENGTHS if body.get(name) is not None), 1) == 0
        )
        self._fields = body.get("response_fields") or []
        self._is_list = isinstance(body.get("prompt"), list) and not any(
            type(part) is int for part in body["prompt"]
        )

    async def events(self, generating: Generating) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a stream."""
        so_far: dict[int, _Told] = {}
        async for chunk in generating.chunks():
            told = so_far.setdefault(chunk.index, _Told())
            part = self._part(told, chunk)
            if chunk.progress:
                part["prompt_progress"] = asdict(chunk.progress)
            if part["content"] or part["tokens"] or chunk.progress:
                yield part
            if chunk.done:
                yield self._last(told, generating.ask.requests[chunk.index], chunk.done, part)

    async def whole(self, generating: Generating) -> Any:
        """Return the answer as one object, or a list of them if the prompts were one."""
        answers = []
        for chunk in await generating.collected():
            told = _Told()
            part = self._part(told, chunk)
            assert chunk.done
            request = generating.ask.requests[chunk.index]
            answers.append(self._last(told, request, chunk.done, part))
        return answers if self._is_list else answers[0]

    def _part(self, told: _Told, chunk: Chunk) -> dict[str, Any]:
        """Return what a stream says of a chunk, which is added to what was told before."""
        steps = () if self._no_reply else chunk.steps
        pieces = () if self._no_reply else chunk.pieces
        content = "".join(piece.text for piece in pieces if isinstance(piece, Content))
        tokens = [step.token for step in steps if not step.is_end_token]
        told.text += content
        told.n_tokens += len(tokens)
        if chunk.steps:
            told.n_prompt = chunk.steps[-1].prompt_tokens
        part = {
            "index": chunk.index,
            "content": content,
            "tokens": tokens,
            "stop": False,
            "id_slot": -1,
            "tokens_predicted": told.n_tokens,
            "tokens_evaluated": told.n_prompt,
        }
        if self._n_probs:
            rows = [_probabilities(one, self._n_probs) for one in steps if not one.is_end_token]
            part["completion_probabilities"] = rows
        if self._n_explained:
            part["explain"] = explained(steps, self._n_explained)
        return part

    def _last(
        self, told: _Told, request: Request, done: Done, part: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the object at the end; in a stream without what was told before.

        Args:
            part: the last of the answer's, all of it if it is not a stream.
        """
        prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
        answer = {
            **part,
            "stop": True,
            "model": self._model,
            "tokens_evaluated": done.generation.prompt_tokens,
            "generation_settings": {
                **settings(request.to_dict()),
                "stop": list(request.stop),
                "grammar": request.constraint.grammar if request.constraint else "",
                "stream": self._stream,
                "n_probs": self._n_probs,
            },
            "prompt": prompt,
            "has_new_line": "\n" in told.text,
            "truncated": False,
            "stop_type": _stop_type(done),
            "stopping_word": done.generation.stop_string or "",
            "tokens_cached": done.generation.cached_tokens,
            "timings": timings(done),
        }
        if self._stream:
            answer["content"] = ""
            for name in ("completion_probabilities", "explain"):
                answer.pop(name, None)
        if self._stream or not self._with_tokens:
            answer["tokens"] = []
        return selected(answer, self._fields) if self._fields else answer


_LENGTHS = ("n_predict", "max_tokens")


@dataclass
class _Told:
    """What has come of one answer."""

    text: str = ""
    n_tokens: int = 0
    n_prompt: int = 0


def settings(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's numbers by llama-server's names; nothing of what anyone wrote.

    Args:
        request: plain data of a `Request`.
    """
    same = (
        *("seed", "temperature", "top_k", "top_p", "min_p", "presence_penalty"),
        *("frequency_penalty", "ignore_eos", "conservative", "draft"),
    )
    length = request["max_tokens"]
    return {
        **{name: request[name] for name in same},
        "repeat_penalty": request["repetition_penalty"],
        "n_predict": length,
        "max_tokens": length,
        "logit_bias": [
            {"token": int(token), "bias": bias} for token, bias in request["logit_bias"].items()
        ],
        "weights": request["weights"],
    }


def timings(done: Done) -> dict[str, Any]:
    """Return the timings with llama-server's two quotients."""
    times = done.timings
    for kind in ("prompt", "predicted"):
        n = times[f"{kind}_n"]
        times[f"{kind}_per_token_ms"] = times[f"{kind}_ms"] / n if n else 0.0
    return times


def selected(answer: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Return the parts at these paths, such as "timings/prompt_n", of those that there are."""
    found = {}
    for path in paths:
        part: Any = answer
        for name in path.split("/"):
            part = part.get(name, _NOTHING) if isinstance(part, Mapping) else _NOTHING
        if part is not _NOTHING:
            found[path] = part
    return found


_NOTHING = object()


def _stop_type(done: Done) -> str:
    reason = done.generation.finish_reason
    if reason == "stop":
        return "eos" if done.generation.stop_string is None else "word"
    return "limit" if reason == "length" else "none"


def _probabilities(step: Step, n: int) -> dict[str, Any]:
    own = TokenLogprob(step.token, step.piece, step.logprob)
    return {**_logprob(own), "top_logprobs": [_logprob(one) for one in step.top_logprobs[:n]]}


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    return {
        "id": one.token,
        "token": one.piece.decode("utf-8", "ignore"),
        "bytes": list(one.piece),
        "logprob": max(one.logprob, _LOWEST),
    }
