"""Every dial of a generation: its name, how its text is read, and what it does.

SETTINGS is the one list of them: the command line, the lines of a prompt file, the chat's /set and
whatever else takes settings from people read it. It knows nothing of command lines, and loads
neither NumPy nor native code until a request is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import RequestError
from ..validate import did_you_mean, kind, whole

if TYPE_CHECKING:
    from .constraint import Constraint
    from .request import Prompt, Request


def parse_mix(text: str) -> dict[str, float]:
    """Return {"a": 0.7, "b": 0.3} of "a=.7,b=.3".

    Raises:
        RequestError: it is not such a list; the message says what was seen.
    """
    mix: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition("="))
        try:
            if not name or name in mix:
                raise ValueError
            mix[name] = float(weight) + 0.0  # −0.0 is 0
        except ValueError:
            raise RequestError(
                f"mix is {text!r:.80}; write each delta once, as in chat=.7,brief=.3"
            ) from None
    return mix


def parse_template_kwargs(text: str) -> dict[str, Any]:
    """Return {"enable_thinking": False} of '{"enable_thinking": false}'.

    Raises:
        RequestError: it is not JSON; what the object may hold is looked at by a request.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RequestError(
            f"chat_template_kwargs is {text!r:.60}; write a JSON object, as in "
            '{"enable_thinking": false}'
        ) from None


def _draft(text: str) -> int | str:
    if text == "auto":
        return text
    if not 0 <= (n := int(text)) <= 15:
        raise ValueError("a draft has 0 to 15 tokens")
    return n


class Setting(NamedTuple):
    """One dial: how its text is read, what it does, its default in words, and its range.

    `low` and `high` bound a number, and None is no bound; with `above_low` it is more than `low`.
    They are those that a request checks.
    """

    read: Callable[[str], Any]
    metavar: str
    help: str
    default: str = ""
    low: float | None = None
    high: float | None = None
    above_low: bool = False

    @property
    def about(self) -> str:
        """What it does, with its default."""
        return f"{self.help} Default {self.default}." if self.default else self.help


SETTINGS = {
    "alpha": Setting(float, "A", "Strength of the delta: 0 is the base alone.", "1", 0),
    "beta": Setting(
        float, "B", "Amplify the base over the reference instead (excludes alpha).", low=0
    ),
    "mix": Setting(
        parse_mix, "D=W,…", "Weights of the deltas, instead of the recipe's: chat=.7,brief=.3"
    ),
    "only": Setting(str, "ROLE", "One model by itself: base, tuned, reference or tuned:DELTA."),
    "conservative": Setting(
        float, "P", "Combine only tuned's likeliest tokens that add up to P.", "off", 0, 1, True
    ),
    "max_tokens": Setting(int, "N", "Longest reply, in tokens.", "256", 1, 2**31 - 1),
    "temperature": Setting(float, "T", "0 always takes the likeliest token.", "0.8", 0, 100),
    "top_k": Setting(int, "K", "Draw from the K likeliest tokens; 0 from all.", "40", 0, 2**31 - 1),
    "top_p": Setting(float, "P", "Draw from the likeliest that sum to P.", "0.95", 0, 1, True),
    "min_p": Setting(float, "P", "Drop tokens below P times the likeliest.", "0", 0, 1),
    "repetition_penalty": Setting(
        float, "R", "Make what the reply has less likely; 1 is off.", "1", 0.01, 100
    ),
    "presence_penalty": Setting(float, "R", "Taken off the logits of such tokens.", "0", -100, 100),
    "frequency_penalty": Setting(float, "R", "Taken off once per occurrence.", "0", -100, 100),
    "draft": Setting(_draft, "N", "Tokens that tuned drafts ahead, for speed: 0 to 15.", "auto"),
    "chat_template_kwargs": Setting(
        parse_template_kwargs, "JSON", "For the chat templates; overrides the recipe's variables."
    ),
    "seed": Setting(
        int, "N", "The same seed gives the same text.", "another each time", 0, 2**64 - 1
    ),
}
VIEWS = {
    "logprobs": Setting(
        int, "N", "Show each token's probability, and the N likeliest in its place.", "", 0, 100
    ),
    "explain": Setting(
        int, "N", "Show what each model thought of each token, and its N likeliest.", "", 0, 100
    ),
}
# Which dials one of them takes the place of, where these are defaults.
REPLACES = {
    "alpha": ("beta", "only"),
    "beta": ("alpha", "only"),
    "mix": ("only",),
    "only": ("alpha", "beta", "mix"),
}
_OF_WEIGHTS = ("alpha", "beta", "mix", "only")
_OTHERS = ("stop", *VIEWS, "schema", "grammar")
_KINDS = {
    "prompt": "a text or token ids",
    "messages": "a list",
    "system": "a text",
    "raw": "true or false",
}


def request_for(prompt: Prompt, settings: Mapping[str, Any]) -> Request:
    """Return a request with `settings`: names of SETTINGS and of VIEWS, `stop`, and either a
    `schema` (JSON's data) or a `grammar` (GBNF).

    Raises:
        RequestError: a setting is unknown or wrong; the message names it.
    """
    from ..logits.weights import Weights
    from .request import MAX_TOP, Request

    known = [*SETTINGS, *_OTHERS]
    if unknown := sorted(set(settings) - set(known)):
        raise RequestError(f"there is no setting {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    weights = {name: settings[name] for name in _OF_WEIGHTS if name in settings}
    others = {name: value for name, value in settings.items() if name not in _OF_WEIGHTS}
    if "logprobs" in others:
        others["top_logprobs"] = whole("logprobs", others.pop("logprobs"), 0, MAX_TOP)
    if "schema" in others or "grammar" in others:
        both = {name: others.pop(name) for name in ("schema", "grammar") if name in others}
        others["constraint"] = constraint(**both)
    return Request(prompt, weights=Weights.from_dict(weights), **others)


def constraint(schema: Any = None, grammar: Any = None) -> Constraint:
    """Return what a reply is held to: a JSON schema, as JSON's data, or a grammar in GBNF.

    Raises RequestError if both are given, or it is not such a thing.
    """
    from .constraint import Constraint

    if schema is not None and grammar is not None:
        raise RequestError("schema and grammar exclude each other; give one")
    kind("schema", schema, Mapping | bool | None, "an object or a bool")
    kind("grammar", grammar, str | None, "a grammar in GBNF")
    return Constraint(gbnf=grammar, json_schema=schema)


@dataclass(frozen=True)
class Defaults:
    """What the command line says of every prompt; a line of an input file may say otherwise."""

    settings: Mapping[str, Any]
    raw: bool
    system: str | None

    def request(self, entry: Mapping[str, Any]) -> Request:
        """Return a request of "prompt" or "messages", "raw", "system" and settings.

        Raises:
            RequestError: something in it is wrong; the message names it.
        """
        given = {name: value for name, value in entry.items() if value is not None}
        prompt, messages = given.pop("prompt", None), given.pop("messages", None)
        raw, system = given.pop("raw", self.raw), given.pop("system", self.system)
        if (prompt is None) == (messages is None):
            raise RequestError('give either "prompt" or "messages"')
        for name, value, kinds in (
            ("prompt", prompt, str | list | None),
            ("messages", messages, list | None),
            ("system", system, str | None),
            ("raw", raw, bool),
        ):
            if not isinstance(value, kinds):
                raise RequestError(f"{name} is {value!r:.60}; it must be {_KINDS[name]}")
        is_ids = isinstance(prompt, list)
        if prompt is not None and not (prompt if is_ids else prompt.strip()):
            raise RequestError("the prompt is empty; say something")
        if is_ids and not all(isinstance(token, int) for token in prompt):
            raise RequestError(f"prompt is {prompt!r:.60}; it must be {_KINDS['prompt']}")
        if isinstance(given.get("mix"), str):
            given["mix"] = parse_mix(given["mix"])
        replaced = {other for name in given for other in REPLACES.get(name, ())}
        defaults = {name: v for name, v in self.settings.items() if name not in replaced}
        settings = {**defaults, **given}
        if raw or is_ids:
            if system or messages is not None:
                raise RequestError(
                    "a raw prompt is one text or a list of token ids, without system message or "
                    "messages"
                )
            return request_for(prompt or "", settings)
        turns: list[Any] = messages or [{"role": "user", "content": prompt}]
        return request_for(
            [{"role": "system", "content": system}, *turns] if system else turns, settings
        )
