"""What goes into the emulator, as plain data that turns into JSON and back.

A child process or a server can carry it. What comes out is in `reply`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from ..errors import PromptError, RequestError
from ..logits.sampling_params import Sampling
from ..logits.weights import Weights
from ..text.formats import check_template_kwargs
from ..text.tools import check_tools
from ..validate import checked_init, did_you_mean, kind, number, whole

if TYPE_CHECKING:
    from ..text.vocabulary import CommonVocabulary
    from .constraint import Constraint

MAX_DRAFT = 15  # a block of 16 with the token after it
MAX_STOPS = 1000  # strings, each of which is looked for at every token
MAX_TOP = 100  # likeliest tokens that a step or a prompt token comes with
Messages = Sequence[Mapping[str, Any]]
Prompt = str | Sequence[int] | Messages


@checked_init()
@dataclass(frozen=True)
class Request(Sampling):
    """One generation: a prompt, the weights of the models, and all of `Sampling`'s options.

    Attributes:
        prompt: a string is raw text, given as it is to every role; a list of token ids likewise,
            and no BOS is added; a list of {"role": …, "content": …} messages goes through each
            role's prompt format.
        weights: how much of each model enters.
        max_tokens: at most so many tokens are generated; the context's end may come first.
        seed: None draws one, which is then readable here.
        stop: the reply ends before the first of these strings, at most 1,000; none of it is given
            out. The text of a control token, which prints nothing, stands for that token.
        conservative: P of EFT's conservative decoding, in (0, 1]; None is off.
        explain: with n > 0 every step says what each role thought: the log-probability of the
            chosen token and the role's own n likeliest.
        top_logprobs: with n > 0 every step lists the n likeliest tokens of the combined
            distribution.
        prompt_logprobs: with a number n ≥ 0 the first step has the combined log-probability of
            every token of the prompt, and the n likeliest in its place; of raw text and ids alone.
        ignore_eos: the end token is never chosen; stop strings still end the reply.
        chat_template_kwargs: variables for the roles' chat templates, over those of the recipe,
            such as {"enable_thinking": False}; formats that are no templates have no use for them.
        tools: definitions of tools, as in `text.tools.check_tools`, for the roles' chat templates
            that show them; the other roles go without.
        constraint: the grammar or schema that the reply obeys, unless max_tokens cuts it.
        prefix_ids: tokens that the reply begins with, as if they had been generated: what follows
            is what follows them in the reply of the same seed. They are not given out, and do not
            count for max_tokens. Not with prompt_logprobs.

    Raises:
        RequestError: a value is out of its range; the message names it.
    """

    prompt: Prompt
    _: KW_ONLY
    weights: Weights = field(default_factory=Weights)
    max_tokens: int = 256
    seed: int | None = None  # type: ignore[assignment]
    stop: Sequence[str] = ()
    conservative: float | None = None
    explain: int = 0
    top_logprobs: int = 0
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    draft: int | Literal["auto"] = "auto"
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()
    constraint: Constraint | None = None
    prefix_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.seed is None:
            object.__setattr__(self, "seed", int.from_bytes(os.urandom(4)))
        super().__post_init__()
        self._check_prompt()
        self._check_prefix()
        try:
            kwargs = check_template_kwargs(self.chat_template_kwargs)
            tools = tuple(check_tools(self.tools))
        except PromptError as error:
            raise RequestError(str(error)) from None
        object.__setattr__(self, "chat_template_kwargs", kwargs)
        object.__setattr__(self, "tools", tools)
        stop = self.stop
        stop = () if stop is None else (stop,) if isinstance(stop, str) else stop
        if not isinstance(stop, Sequence) or not all(isinstance(s, str) and s for s in stop):
            raise RequestError(f"stop is {self.stop!r:.40}; it must be non-empty strings")
        if len(stop) > MAX_STOPS:
            raise RequestError(f"stop has {len(stop)} strings; at most {MAX_STOPS} are taken")
        object.__setattr__(self, "stop", tuple(stop))
        whole("max_tokens", self.max_tokens, 1)
        whole("explain", self.explain, 0)
        whole("top_logprobs", self.top_logprobs, 0, MAX_TOP)
        kind("ignore_eos", self.ignore_eos, bool, "true or false")
        if not (isinstance(self.draft, str) and self.draft == "auto"):
            whole("draft, unless auto,", self.draft, 0, MAX_DRAFT)
        if self.conservative is not None:
            number("conservative", self.conservative, 0.0, 1.0, open_low=True)
        if not isinstance(self.weights, Weights):
            raise RequestError(f"weights is {self.weights!r:.40}; it must be a Weights")
        if self.constraint is not None:
            from .constraint import Constraint  # few requests have one, and it takes long

            kind("constraint", self.constraint, Constraint, "a Constraint")

    def _check_prompt(self) -> None:
        prompt = self.prompt
        is_list = isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray)
        if not is_list or not (
            is_raw(prompt) or all(isinstance(message, str | Mapping) for message in prompt)
        ):
            raise RequestError(f"prompt is {prompt!r:.40}; it must be text, token ids or messages")
        if not isinstance(prompt, str):  # the caller's list grows as a conversation goes on
            object.__setattr__(self, "prompt", _copied(list(prompt)))
        if self.prompt_logprobs is not None:
            whole("prompt_logprobs", self.prompt_logprobs, 0, MAX_TOP)
            if not is_raw(prompt):
                raise RequestError(
                    "prompt_logprobs needs a prompt of raw text or token ids: messages are other "
                    "tokens for every role"
                )

    def _check_prefix(self) -> None:
        ids = self.prefix_ids
        is_list = isinstance(ids, Sequence) and not isinstance(ids, str | bytes | bytearray)
        if not is_list or (ids and not is_ids(ids)):
            raise RequestError(f"prefix_ids is {ids!r:.40}; it must be token ids")
        object.__setattr__(self, "prefix_ids", tuple(ids))
        if ids and self.prompt_logprobs is not None:
            raise RequestError("prefix_ids are not for a request with prompt_logprobs")

    def with_weights(self, weights: Weights) -> Request:
        """Return the same request under other weights."""
        return replace(self, weights=weights)

    def for_vocabulary(self, vocabulary: CommonVocabulary) -> Request:
        """Return the request as sampling takes it, with the end token forbidden if it is ignored.

        Raises:
            RequestError: a token id of the prompt, of `prefix_ids` or of `logit_bias` is not one of
                all models.
        """
        self.check_vocabulary(vocabulary.n_vocab)
        if is_ids(self.prompt):
            check_ids(self.prompt, vocabulary)
        check_ids(self.prefix_ids, vocabulary, "prefix_ids")
        if not self.ignore_eos or vocabulary.end_token is None:
            return self
        return replace(self, logit_bias={**self.logit_bias, vocabulary.end_token: -math.inf})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, which has no −inf: a forbidden token's bias is None."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        bias = {str(t): None if b == -math.inf else b for t, b in self.logit_bias.items()}
        more = {"weights": self.weights.to_dict(), "stop": list(self.stop), "logit_bias": bias}
        if self.constraint is not None:
            more["constraint"] = self.constraint.to_dict()
        return values | more | {"tools": list(self.tools), "prefix_ids": list(self.prefix_ids)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """Return the request that `to_dict` described; what is left out has its default.

        Raises:
            RequestError: a field is not known, missing or wrong.
        """
        kind("a request", values, Mapping, "an object with a prompt")
        known = [f.name for f in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            near = did_you_mean(unknown[0], known)
            raise RequestError(f"a request has no field {unknown[0]!r}{near}")
        if "prompt" not in values:
            raise RequestError("a request needs a prompt")
        options = {name: value for name, value in values.items() if value is not None}
        if "weights" in options:
            options["weights"] = Weights.from_dict(options["weights"])
        if "constraint" in options:
            from .constraint import Constraint

            options["constraint"] = Constraint.from_dict(options["constraint"])
        if isinstance(bias := options.get("logit_bias"), Mapping):
            try:
                options["logit_bias"] = {
                    int(token): -math.inf if value is None else value
                    for token, value in bias.items()
                }
            except (TypeError, ValueError):
                raise RequestError(
                    f"logit_bias is {bias!r:.40}; it must map token ids to numbers"
                ) from None
        return cls(**options)


def check_ids(ids: Sequence[int], vocabulary: CommonVocabulary, of: str = "the prompt") -> None:
    """Raise RequestError if one of these ids is not the same token to all models."""
    for token in ids:
        if not 0 <= token < vocabulary.n_vocab:
            raise RequestError(f"{of} has token {token}; the ids are 0 … {vocabulary.n_vocab - 1}")
        if token in vocabulary.renamed:
            raise RequestError(
                f"{of} has token {token}, which means different things to the models; "
                "leave it out, or have the recipe adopt it"
            )


def is_raw(prompt: Prompt) -> bool:
    """Return whether a prompt is text or token ids, which every role is given as they are."""
    return isinstance(prompt, str) or is_ids(prompt)


def is_ids(prompt: Prompt) -> TypeGuard[Sequence[int]]:
    """Return whether a prompt is token ids."""
    return bool(prompt) and all(type(token) is int for token in prompt)


def as_request(prompt: Prompt | Request, options: Mapping[str, Any]) -> Request:
    """Return the request that a prompt and options make, or the one that is given whole.

    Raises:
        RequestError: as `Request`, or there are options beside a whole one.
    """
    if isinstance(prompt, Request):
        if options:
            raise RequestError(f"a Request takes no further options, such as {next(iter(options))}")
        return prompt
    return Request(prompt, **options)


def _copied(value: Any) -> Any:
    """A copy of messages, down to the parts of their contents."""
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if isinstance(value, list | tuple) else value
