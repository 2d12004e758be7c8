"""What clients send, as JSON schemas for /openapi.json.

Which fields a body has is its dialect's to say, and stands there alone. What a field is that means
the same everywhere is told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..engine.request import MAX_DRAFT, MAX_TOP
from ..engine.settings import SETTINGS
from ..text.messages import ROLES
from . import (
    anthropic,
    llama_routes,
    llama_server,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
    openai_routes,
)
from .fields import MAX_CHOICES, MAX_TOP_LOGPROBS

Schema = dict[str, Any]


def typed(kinds: str, about: str = "", **more: Any) -> Schema:
    """Return the schema of a value of one of these types, as in "string|array"."""
    names = kinds.split("|")
    schema = {"type": names if len(names) > 1 else kinds, **more}
    return {**schema, "description": about} if about else schema


def _within(kind: str, low: float, high: float, about: str = "") -> Schema:
    """Return the schema of a number in [low, high]."""
    return typed(kind, about, minimum=low, maximum=high)


def record(needed: str = "", about: str = "", **properties: Schema) -> Schema:
    """Return the schema of an object with these properties, of which some are `needed`."""
    required = {"required": needed.split()} if needed else {}
    return typed("object", about, properties=properties, **required)


def _items(schema: Schema, about: str = "", **more: Any) -> Schema:
    """Return the schema of a list of values of a schema."""
    return typed("array", about, items=schema, **more)


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT, _FLAG, _OBJECT = typed("string"), typed("boolean"), typed("object")
_WHOLE = typed("integer")
_QUIET = {"description": "Accepted; it changes nothing here."}
_REFUSED = typed("null", "Refused: nothing is stored here.")
_JSON_SCHEMA = typed("object", "A JSON schema; a keyword that cannot be held to is refused.")
_PART = record("type text", type={"const": "text"}, text=TEXT)
_MESSAGES = _items(
    record(
        "role",
        role={"enum": [*ROLES]},
        content=typed("string|array|null", "A text, or parts of text.", items=_PART),
    ),
    "An assistant's last one is continued.",
)
_LOGIT_BIAS = "Token id → number added to its logit."

_LENGTH = typed("integer", "Longest reply, in tokens; −1: as long as the context.", minimum=-1)
_SHARE = typed("number", exclusiveMinimum=0, maximum=1)
_WEIGHT = typed("number", minimum=0)
_PENALTY = _within("number", -100, 100)
_REPETITION = _within("number", 0.01, 100, SETTINGS["repetition_penalty"].about)
_TEXTS = _items(typed("string", minLength=1))
_FUNCTION = {"description": "Of a function: name, description, parameters."}
_FORMAT = record("type", type={"enum": ["text", "json_object", "json_schema"]}) | {
    "description": "The reply parses, and validates with json_schema, unless its length cuts it."
}

_PLAIN = {
    "temperature": _within("number", 0, 100),
    "top_p": _SHARE,
    "top_k": typed("integer", minimum=0),
    "min_p": _within("number", 0, 1),
    "repetition_penalty": _REPETITION,
    "repeat_penalty": _REPETITION,
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "logit_bias": typed("object", _LOGIT_BIAS, additionalProperties=_within("number", -1e4, 1e4)),
    "seed": typed("integer", "The same seed gives the same text; −1 draws one."),
    "stop": typed("string|array", "The reply ends before one of these.", minLength=1)
    | {"items": _TEXTS["items"]},
    "stop_sequences": _TEXTS,
    "ignore_eos": typed("boolean", "The reply ends at its length or a stop string alone."),
    **dict.fromkeys(("max_completion_tokens", "max_output_tokens", "max_tokens"), _LENGTH),
    "n_predict": typed("integer", "Longest reply, in tokens; below 0: as long as the context."),
    "n": _within("integer", 1, MAX_CHOICES, "Choices of one prompt."),
    "best_of": _within("integer", 1, MAX_CHOICES, "The same as n: choices are not ranked."),
    "alpha": _WEIGHT,
    "beta": _WEIGHT,
    "mix": typed("string|object", additionalProperties=_WEIGHT),
    "only": TEXT,
    "conservative": _SHARE,
    "draft": {"anyOf": [{"const": "auto"}, _within("integer", 0, MAX_DRAFT)]},
    "explain": _within("integer", 0, MAX_TOP, "What each model thought, and its n likeliest."),
    "model": typed("string", "As in /v1/models; the first of them if it is left out."),
    "name": {"description": "The older name of model."},
    "stream": typed("boolean", "Whether the answer comes while it is made."),
    "stream_options": record(include_usage={}),
    "return_progress": typed("boolean", "A stream tells how far the prompt is read."),
    "messages": {**_MESSAGES, "minItems": 1},
    "input": typed("string|array", "A text, or items.", minLength=1, minItems=1, items=_OBJECT),
    "instructions": typed("string", "The system prompt."),
    "system": typed("string|array", "A text, or blocks of text.", items=_OBJECT),
    "content": typed("string|array", "A text, or a list of texts and token ids."),
    "tokens": _items(typed("integer", minimum=0)),
    "tools": _items(record(type={}, function=_FUNCTION), "Functions; others are ignored."),
    "tool_choice": {"anyOf": [{"enum": ["auto", "none", "required"]}, _OBJECT]},
    "prefix_ids": _items(
        typed("integer", minimum=0), "Tokens that the reply has already: it goes on after them."
    ),
    "response_format": _FORMAT,
    "text": record(format=_nullable(_FORMAT)),
    "output_config": record(format=_nullable(record("type", type={"const": "json_schema"}))),
    "format": {"anyOf": [{"enum": ["json", ""]}, _JSON_SCHEMA]},
    "json_schema": _JSON_SCHEMA,
    "grammar": typed("string", "In GBNF."),
    "chat_template_kwargs": typed("object"),
    "reasoning_format": typed("string", "none leaves the reasoning in the content."),
    "think": {"anyOf": [_FLAG, {"enum": ["low", "medium", "high"]}]},
    "thinking": record(type={}),
    "logprobs": _FLAG,
    "top_logprobs": _within("integer", 0, MAX_TOP_LOGPROBS),
    "n_probs": _within("integer", 0, MAX_TOP),
    "echo": typed("boolean", "The prompt comes, too, with logprobs scored under the emulation."),
    "suffix": typed("string", "Refused.", maxLength=0),
    "images": _items({}, "Refused.", maxItems=0),
    "background": {"enum": [False], "description": "Answers are not kept for later."},
    "options": typed("object", "As Ollama has them."),
    "id_slot": typed("integer", "It changes nothing."),
    "cache_prompt": typed("boolean", "It changes nothing: all prompts are cached."),
    "response_fields": _items(TEXT, 'Parts of the answer, as in "timings/prompt_n".'),
    "raw": typed("boolean", "The prompt goes to every model as it is."),
    **dict.fromkeys(("return_tokens", "add_special", "parse_special", "with_pieces"), _FLAG),
    "id": typed("string", "Of an answer in work, as in its first chunk."),
    "action": {"enum": ["stop", "set_weights"]},
    **dict.fromkeys(("user", "parallel_tool_calls", "store", "metadata"), _QUIET),
    **dict.fromkeys(("prompt_cache_key", "safety_identifier", "service_tier"), _QUIET),
    **dict.fromkeys(("previous_response_id", "conversation"), _REFUSED),
}
# The dials are described where they are defined.
FIELDS: dict[str, Schema] = {
    name: {"description": SETTINGS[name].about, **schema} if name in SETTINGS else schema
    for name, schema in _PLAIN.items()
}


class Body(NamedTuple):
    """A JSON object that clients send.

    Attributes:
        names: of its fields.
        example: one that is served.
        needed: names of fields that must be there.
        own: fields that are something else here than elsewhere.
    """

    names: Iterable[str]
    example: Mapping[str, Any]
    needed: str = ""
    own: Mapping[str, Schema] = {}

    def schema(self) -> Schema:
        """Return its schema; null is as if a field were not there."""
        facts = {name: self.own.get(name) or FIELDS[name] for name in self.names}
        for name in facts.keys() - self.needed.split():
            facts[name] = _nullable(facts[name])
        about = "Fields that are not known are ignored, and named in X-Ignored-Fields."
        return record(self.needed, about, **facts) | {"examples": [self.example]}


_NEAREST = typed("number", "What is out of range counts as the nearest that is in it.")
_PROMPT = "A text, token ids, or a list of either; it goes to every model as it is."
_HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
_ROLE = {"enum": ["user", "assistant", "system"]}
_BLOCKS = typed("string|array", "A text, or blocks.", items=_OBJECT)
_CHOICE = record("type", type={"enum": ["auto", "any", "tool", "none"]}, name={})
BODIES = {
    "Chat": Body(openai_chat.KNOWN, _HELLO, "messages"),
    "Completion": Body(
        openai_completions.KNOWN,
        {"prompt": "The capital of Peru is", "max_tokens": 8},
        "prompt",
        {
            "prompt": typed("string|array", _PROMPT, minItems=1),
            "logprobs": _within("integer", 0, MAX_TOP_LOGPROBS, "The n likeliest of each token."),
            "max_tokens": typed("integer", "Default 16; 0 goes with echo alone.", minimum=-1),
        },
    ),
    "Response": Body(
        openai_responses.KNOWN,
        {"input": "Hello", "max_output_tokens": 8},
        "input",
        {
            "prompt": _REFUSED,
            "tools": _items(record(type={}, name={}, parameters={})),
            "stream_options": _QUIET,
        },
    ),
    "Control": Body(
        openai_routes.CONTROL,
        {"id": "chatcmpl-0", "action": "set_weights", "alpha": 0.5},
        "id action",
    ),
    "Message": Body(
        anthropic.KNOWN,
        _HELLO,
        "messages",
        {
            "messages": _items(record("role content", role=_ROLE, content=_BLOCKS), minItems=1),
            "tools": _items(record(type={}, name={}, input_schema={})),
            "tool_choice": _CHOICE,
        },
    ),
    "LlamaCompletion": Body(
        (*llama_server.KNOWN, *llama_server.NAMES),
        {"prompt": "The capital of Peru is", "n_predict": 8},
        "prompt",
        {
            "prompt": typed("string|array|object", _PROMPT, minItems=1),
            "max_tokens": {"description": "As n_predict, which counts if both are there."},
            "repetition_penalty": {"description": "As repeat_penalty, which counts likewise."},
            "temperature": typed("number", maximum=100),
            "top_k": _WHOLE,
            "logit_bias": typed("array|object", f"{_LOGIT_BIAS} Also [[id or text, number], …]."),
            "stop": typed("string|array", items=TEXT),
        },
    ),
    "Tokenize": Body(llama_routes.TOKENIZE, {"content": "Hello"}),
    "Detokenize": Body(llama_routes.DETOKENIZE, {"tokens": [1]}),
    "OllamaChat": Body(
        ollama.CHAT,
        {"messages": _HELLO["messages"], "options": {"num_predict": 8}},
        own={"messages": {**_MESSAGES, "description": "Without any, the model is loaded."}},
    ),
    "OllamaGenerate": Body(
        ollama.GENERATE,
        {"prompt": "Hello", "options": {"num_predict": 8}},
        own={"prompt": typed("string", "Without one, the model is loaded."), "system": TEXT},
    ),
    "OllamaOptions": Body(
        ollama.OPTIONS,
        {"num_predict": 8},
        own={
            **dict.fromkeys(("temperature", "top_p", "min_p"), _NEAREST),
            "top_k": typed("number", "Below 1: all tokens."),
            "repeat_penalty": typed("number", "0 and less: none."),
            "num_predict": typed("number", "Below 1: as long as the context."),
            "stop": typed("string|array", "Empty ones are none.", items=TEXT),
        },
    ),
    "OllamaShow": Body(("model", "name"), {"model": ""}),
}
