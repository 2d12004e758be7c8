"""Fields of a body → requests: what OpenAI's two interfaces and ours have in common.

A field that is not known is noted and not read; a wrong value of a known one is an error that names
it. null is as if the field were not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..engine.constraint import Constraint
from ..engine.request import MAX_TOP, Prompt, Request
from ..engine.settings import parse_mix
from ..errors import EdgeEftError
from ..logits.weights import Weights
from .api_error import ApiError
from .failure import refused
from .served import NamedModel

# Taken as they are, by the names of `Request`.
_PLAIN = (
    *("temperature", "top_p", "top_k", "min_p", "stop", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "conservative", "draft", "explain", "ignore_eos"),
)
WEIGHTS = ("alpha", "beta", "mix")
SAMPLING = (
    *_PLAIN,
    *WEIGHTS,
    *("max_tokens", "seed", "logit_bias", "n", "stream", "stream_options", "model", "user"),
    "prefix_ids",
)
_OWN = (
    *("stop", "explain", "max_tokens", "n", "stream", "stream_options", "model", "user"),
    "prefix_ids",
)
# Of these, what every dialect takes under the same names, with words of its own for the rest.
COMMON = tuple(name for name in SAMPLING if name not in _OWN)
MAX_CHOICES = 16
MAX_TOP_LOGPROBS = 20  # of OpenAI's interfaces


class Fields:
    """The fields of a body that are read, and those that are not.

    Args:
        body: a JSON object.
        known: names of the fields that the interface has.

    Attributes:
        ignored: what came and is not read.
    """

    def __init__(self, body: Mapping[str, Any], known: tuple[str, ...]) -> None:
        self._values = {name: value for name, value in body.items() if value is not None}
        self._known = known
        self.ignored = [name for name in self._values if name not in known]

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, kind: Any, wanted: str, default: Any = None) -> Any:
        """Return a field's value, `default` without one; ApiError if it is not a `kind`."""
        value = self._values.get(name, default)
        if name in self._values and (
            not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        ):
            raise self.wrong(name, f"it must be {wanted}")
        return value

    def flag(self, name: str) -> bool:
        """Return a field that is true or false; false without one."""
        return bool(self.get(name, bool, "true or false", False))

    def tells_progress(self) -> bool:
        """Return whether a stream is to tell how far the prompt is read; nothing else could."""
        wanted = self.flag("return_progress")
        return wanted and self.flag("stream")

    def count(self, name: str, low: int, high: int, default: int) -> int:
        """Return a field that is a whole number in [low, high]."""
        value: int = self.get(name, int, f"a whole number in [{low}, {high}]", default)
        if not low <= value <= high:
            raise self.wrong(name, f"it must be a whole number in [{low}, {high}]")
        return value

    def wrong(self, name: str, wanted: str) -> ApiError:
        """Return the error of a field's value."""
        seen = repr(self._values.get(name))
        seen = seen if len(seen) <= 60 else f"{seen[:60]}…"
        return ApiError(400, f"{name} is {seen}; {wanted}", param=name)

    def options(self) -> dict[str, Any]:
        """Return the options of a `Request` that all interfaces name alike."""
        values = self._values
        options = {name: values[name] for name in _PLAIN if name in values}
        if (seed := self.get("seed", int, "a whole number")) is not None and seed != -1:
            options["seed"] = seed % (1 << 64)
        if "logit_bias" in values:
            options["logit_bias"] = self._bias()
        return options

    def _bias(self) -> dict[int, float]:
        bias = self.get("logit_bias", dict, "an object: token id → number")
        try:
            return {int(token): value for token, value in bias.items()}
        except ValueError:
            raise self.wrong("logit_bias", "its keys must be token ids") from None

    def weights(self, model: NamedModel) -> Weights:
        """Return the weights that the model's name and the dials stand for.

        Raises:
            ApiError: they do not go together, or one is wrong.
        """
        return Weights.from_dict({**model.weights, **self.dials()})

    def dials(self, *more: str) -> dict[str, Any]:
        """Return the dials that are set, and other fields by their names."""
        names = (*WEIGHTS, *more)
        dials = {name: self._values[name] for name in names if name in self._values}
        if isinstance(dials.get("mix"), str):
            dials["mix"] = parse_mix(dials["mix"])
        return dials

    def max_tokens(self, names: tuple[str, ...], default: int) -> int:
        """Return the longest reply: the first of these fields; −1 is as long as the context."""
        for name in names:
            value = self.get(name, int, "a whole number, at least 1")
            if value is not None:
                if value != -1 and value < 1:
                    raise self.wrong(name, "it must be at least 1")
                return default if value == -1 else min(value, default)
        return default

    def choices(self, prompt: Prompt, model: NamedModel, n: int, **more: Any) -> Iterator[Request]:
        """Yield the requests of `n` choices, each with a seed of its own.

        Args:
            more: options by the names of `Request`; what `explain` shows of the emulation adds to
                `top_logprobs`, so that the writers tell as many of each as are asked for.

        Raises:
            ApiError: a value is wrong; the error names the field.
        """
        n_explained = self.count("explain", 0, MAX_TOP, 0)
        try:
            options = {**self.options(), **more}
            options["top_logprobs"] = max(n_explained, more.get("top_logprobs", 0))
            first = Request(prompt, weights=self.weights(model), **options)
            yield first
            for i in range(1, n):
                seed = ((first.seed or 0) + i) % (1 << 64)
                yield Request(prompt, weights=first.weights, **{**options, "seed": seed})
        except EdgeEftError as error:
            raise refused(error, self._known) from None

    def constraint(self) -> Constraint | None:
        """Return what `response_format` holds the reply to."""
        wanted = self.get("response_format", dict, 'an object such as {"type": "json_object"}')
        if wanted is None or wanted.get("type") == "text":
            return None
        schema = wanted.get("schema")
        if wanted.get("type") == "json_schema":
            described = wanted.get("json_schema")
            schema = described.get("schema") if isinstance(described, dict) else schema
            if schema is None:
                raise self.wrong("response_format", "json_schema.schema is missing")
        elif wanted.get("type") != "json_object":
            raise self.wrong("response_format", "its type is text, json_object or json_schema")
        try:
            return Constraint(json_schema={"type": "object"} if schema is None else schema)
        except EdgeEftError as error:
            raise ApiError(400, f"response_format: {error}", param="response_format") from None


def text_parts(
    content: Any, where: str, kinds: Collection[str] = ("text",), param: str = "messages"
) -> list[dict[str, str]]:
    """Return a content, a text or a list of parts, as parts of text in OpenAI's form.

    Args:
        where: the content stands in the body.
        kinds: of parts that are text.

    Raises:
        ApiError: there is something else in it; these models read nothing but text.
    """
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise ApiError(400, f"{where} is {content!r:.60}; it must be a text or a list", param=param)
    parts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in kinds or not isinstance(part.get("text"), str):
            seen = f"of type {kind!r:.40}" if kind not in kinds and kind else f"{part!r:.60}"
            told = f"{where}[{i}] is {seen}; these models read text alone, leave it out"
            raise ApiError(400, told, param=param)
        parts.append({"type": "text", "text": part["text"]})
    return parts


@contextmanager
def said_as(names: Mapping[str, str]) -> Iterator[None]:
    """Let errors name the fields as the client does.

    Args:
        names: what a dialect calls them → what `Fields` and `Request` do.
    """
    try:
        yield
    except ApiError as error:
        for theirs, ours in names.items():
            if error.param == ours:
                told = error.message.replace(ours, theirs, 1)
                raise ApiError(error.status, told, param=theirs) from None
        raise
