"""What goes into the emulator and what comes out of it, as plain data.

Requests turn into JSON and back, steps and generations into JSON, so that a child process or a
server can carry them.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from typing import Any, Literal

from .checks import number, whole
from .combiner import Weights
from .errors import RequestError
from .sampling import Sampling

MAX_DRAFT = 15  # a block of 16 with the token behind it
Prompt = str | Sequence[Mapping[str, Any]]
FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request(Sampling):
    """One generation: a prompt, the weights of the models, and all of `Sampling`'s options.

    Attributes:
        prompt: a string is raw text, given as it is to every role; a list of
            {"role": …, "content": …} messages goes through each role's prompt format.
        weights: how much of each model enters.
        max_tokens: at most so many tokens are generated; the context's end may come first.
        seed: None draws one, which is then readable here.
        stop: the reply ends before the first of these strings; none of it is given out.
        conservative: P of EFT's conservative decoding, in (0, 1]; None is off.
        explain: with n > 0 every step says what each role thought: the log-probability of the
            chosen token and the role's own n likeliest.

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

    def __post_init__(self) -> None:
        if self.seed is None:
            object.__setattr__(self, "seed", secrets.randbits(32))
        super().__post_init__()
        if not isinstance(self.prompt, str | Sequence) or not all(
            isinstance(message, str | Mapping) for message in self.prompt
        ):
            raise RequestError(f"prompt is {self.prompt!r:.40}; it must be text or messages")
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        if not isinstance(stop, Sequence) or not all(isinstance(s, str) and s for s in stop):
            raise RequestError(f"stop is {self.stop!r:.40}; it must be non-empty strings")
        object.__setattr__(self, "stop", tuple(stop))
        whole("max_tokens", self.max_tokens, 1)
        whole("explain", self.explain, 0)
        if self.draft != "auto":
            whole("draft, unless auto,", self.draft, 0, MAX_DRAFT)
        if self.conservative is not None:
            number("conservative", self.conservative, 0.0, 1.0, open_low=True)
        if not isinstance(self.weights, Weights):
            raise RequestError(f"weights is {self.weights!r:.40}; it must be a Weights")

    def with_weights(self, weights: Weights) -> Request:
        """The same request under other weights."""
        return replace(self, weights=weights)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no −inf: a forbidden token's bias is None."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        bias = {str(t): None if b == -math.inf else b for t, b in self.logit_bias.items()}
        more = {"weights": self.weights.to_dict(), "stop": list(self.stop), "logit_bias": bias}
        return values | more

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The inverse of `to_dict`; what is left out has its default.

        Raises:
            RequestError: a field is not known, missing or wrong.
        """
        if unknown := sorted(set(values) - {f.name for f in fields(cls)}):
            raise RequestError(f"a request has no field {unknown[0]!r}")
        if "prompt" not in values:
            raise RequestError("a request needs a prompt")
        options = {name: value for name, value in values.items() if value is not None}
        if "weights" in options:
            options["weights"] = Weights.from_dict(options["weights"])
        if bias := options.get("logit_bias"):
            try:
                options["logit_bias"] = {
                    int(token): -math.inf if value is None else value
                    for token, value in bias.items()
                }
            except (AttributeError, ValueError):
                raise RequestError(
                    f"logit_bias is {bias!r:.40}; it must map token ids to numbers"
                ) from None
        return cls(**options)


@dataclass
class Timings:
    """Where the time went, in seconds.

    Decoding is per role. A batch that several slots share counts in full for each of them.

    Attributes:
        prefill: role → decoding of the prompt, and of drafts behind it.
        decode: role → decoding of generated tokens.
        combine: forming the weighted sum and its normaliser.
        sample: penalties, filters, choice.
        text: detokenising and stop strings.
        total: wall clock of it all, which is more than the sum of the parts.
    """

    prefill: dict[str, float] = field(default_factory=dict)
    decode: dict[str, float] = field(default_factory=dict)
    combine: float = 0.0
    sample: float = 0.0
    text: float = 0.0
    total: float = 0.0

    @property
    def after_prompt(self) -> float:
        """Wall clock less the prompt's decodes."""
        return self.total - sum(self.prefill.values())

    @property
    def decodes(self) -> dict[str, float]:
        """Role → decoding of prompt and reply together."""
        parts = Timings(decode=dict(self.decode))
        parts.add(Timings(decode=self.prefill))
        return parts.decode

    def add(self, other: Timings) -> None:
        """Adds another's times to these."""
        for mine, theirs in ((self.prefill, other.prefill), (self.decode, other.decode)):
            for role, seconds in theirs.items():
                mine[role] = mine.get(role, 0.0) + seconds
        self.combine += other.combine
        self.sample += other.sample
        self.text += other.text
        self.total += other.total


@dataclass(frozen=True)
class RoleView:
    """What one role thought of a step: log-probabilities under that model alone.

    Attributes:
        logprob: of the chosen token.
        top: the role's own likeliest tokens: (token id, text, log-probability), best first.
    """

    logprob: float
    top: tuple[tuple[int, str, float], ...]


@dataclass(frozen=True)
class Step:
    """One generated token with what is known of it.

    Attributes:
        request_id: from `Emulator.submit`.
        index: position in the reply, from 0.
        token: its id; the end token in the step that ends a reply by it.
        text: what can now be shown; empty while a character or a possible stop string is
            incomplete, more than the token's own text afterwards.
        logprob: log-probability of the token in the combined distribution, before temperature
            and all other sampling options.
        timings: of this step.
        finish_reason: in the last step of a reply: "stop" (end token or stop string) or "length".
        explain: role → RoleView, where asked for.
        accepted: whether it is the token that was drafted; None where no draft was tested.
    """

    request_id: int
    index: int
    token: int
    text: str
    logprob: float
    timings: Timings
    finish_reason: FinishReason | None = None
    explain: Mapping[str, RoleView] | None = None
    accepted: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no −inf: the log-probability of the impossible is None."""
        values = asdict(self)
        for view in (values, *(values["explain"] or {}).values()):
            if view["logprob"] == -math.inf:
                view["logprob"] = None
        return values


@dataclass(frozen=True)
class Generation:
    """A finished reply.

    Attributes:
        text: the reply, without end token and stop string.
        tokens: the ids generated, without the end token.
        finish_reason: "stop", "length", or "cancelled" if more was to come.
        prompt_tokens: length of the base's prompt; other roles' prompts may differ.
        timings: summed over the steps.
        seed: that gives this text again.
        drafts_tested, drafts_accepted: drafted tokens that were compared, and that were right.
        came_with_prompt: tokens, the end token included, of the step that also worked through the
            prompt: the first one, and drafts behind it.
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    prompt_tokens: int
    timings: Timings
    seed: int
    drafts_tested: int = 0
    drafts_accepted: int = 0
    came_with_prompt: int = 1

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, of those that did not come with the prompt; 0 if all did."""
        seconds = self.timings.after_prompt
        n = len(self.tokens) - self.came_with_prompt
        return n / seconds if n > 0 and seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass
class Reply:
    """A reply as its steps come in.

    Attributes:
        request: what it answers.
        prompt_tokens: length of the base's prompt.
        end_token: the id that is no part of the text.
        text, tokens, timings: so far.
    """

    request: Request
    prompt_tokens: int
    end_token: int | None
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    _with_prompt: int = 0
    _verdicts: list[bool | None] = field(default_factory=list)
    _finish_reason: FinishReason = "cancelled"

    @property
    def begun(self) -> bool:
        """Whether more than white space has come."""
        return bool(self.text.strip())

    def take(self, step: Step) -> None:
        """Add the next step."""
        self.text += step.text
        self.timings.add(step.timings)
        self._verdicts.append(step.accepted)
        self._finish_reason = step.finish_reason or "cancelled"
        if step.token != self.end_token:
            self.tokens.append(step.token)
        self._with_prompt += not self.timings.decode

    def generation(self) -> Generation:
        """What has come so far; its finish reason is "cancelled" if more was to come."""
        return Generation(
            self.text,
            self.tokens,
            self._finish_reason,
            self.prompt_tokens,
            self.timings,
            self.request.seed or 0,
            drafts_tested=len(self._verdicts) - self._verdicts.count(None),
            drafts_accepted=self._verdicts.count(True),
            came_with_prompt=self._with_prompt,
        )
