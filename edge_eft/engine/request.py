"""What goes into the emulator, as plain data that turns into JSON and back.

A child process or a server can carry it. What comes out is in `reply`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, Literal

from ..errors import PromptError, RequestError
from ..logits.sampling_params import Sampling
from ..logits.weights import Weights
from ..text.formats import check_template_kwargs
from ..validate import checked_init, did_you_mean, kind, number, whole

MAX_DRAFT = 15  # a block of 16 with the token after it
Prompt = str | Sequence[Mapping[str, Any]]


@checked_init()
@dataclass(frozen=True)
class Request(Sampling):
    """One generation: a prompt, the weights of the models, and all of `Sampling`'s options.

    Attributes:
        prompt: a string is raw text, given as it is to every role; a list of
            {"role": …, "content": …} messages goes through each role's prompt format.
        weights: how much of each model enters.
        max_tokens: at most so many tokens are generated; the context's end may come first.
        seed: None draws one, which is then readable here.
        stop: the reply ends before the first of these strings; none of it is given out. The text of
            a control token, which prints nothing, stands for that token.
        conservative: P of EFT's conservative decoding, in (0, 1]; None is off.
        explain: with n > 0 every step says what each role thought: the log-probability of the
            chosen token and the role's own n likeliest.
        chat_template_kwargs: variables for the roles' chat templates, over those of the recipe,
            such as {"enable_thinking": False}; formats that are no templates have no use for them.

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
    draft: int | Literal["auto"] = "auto"
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seed is None:
            object.__setattr__(self, "seed", secrets.randbits(32))
        super().__post_init__()
        if not isinstance(self.prompt, str | Sequence) or not all(
            isinstance(message, str | Mapping) for message in self.prompt
        ):
            raise RequestError(f"prompt is {self.prompt!r:.40}; it must be text or messages")
        if not isinstance(self.prompt, str):  # the caller's list grows as a conversation goes on
            object.__setattr__(self, "prompt", _copied(self.prompt))
        try:
            kwargs = check_template_kwargs(self.chat_template_kwargs)
        except PromptError as error:
            raise RequestError(str(error)) from None
        object.__setattr__(self, "chat_template_kwargs", kwargs)
        stop = self.stop
        stop = () if stop is None else (stop,) if isinstance(stop, str) else stop
        if not isinstance(stop, Sequence) or not all(isinstance(s, str) and s for s in stop):
            raise RequestError(f"stop is {self.stop!r:.40}; it must be non-empty strings")
        object.__setattr__(self, "stop", tuple(stop))
        whole("max_tokens", self.max_tokens, 1)
        whole("explain", self.explain, 0)
        if not (isinstance(self.draft, str) and self.draft == "auto"):
            whole("draft, unless auto,", self.draft, 0, MAX_DRAFT)
        if self.conservative is not None:
            number("conservative", self.conservative, 0.0, 1.0, open_low=True)
        if not isinstance(self.weights, Weights):
            raise RequestError(f"weights is {self.weights!r:.40}; it must be a Weights")

    def with_weights(self, weights: Weights) -> Request:
        """Return the same request under other weights."""
        return replace(self, weights=weights)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, which has no −inf: a forbidden token's bias is None."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        bias = {str(t): None if b == -math.inf else b for t, b in self.logit_bias.items()}
        more = {"weights": self.weights.to_dict(), "stop": list(self.stop), "logit_bias": bias}
        return values | more

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
