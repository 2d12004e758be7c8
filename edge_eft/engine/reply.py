"""What comes out of the emulator: steps, and the replies that they add up to.

Plain data that turns into JSON and back, so that a child process or a server can carry it. A step
says all that a front end needs; nobody has to ask the emulator as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .request import Request

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass
class Timings:
    """Where the time went, in seconds.

    Decoding is per context, under the name of its first role. A batch that several slots share
    counts in full for each of them.

    Attributes:
        prefill: role → decoding of the prompt, and of drafts after it.
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
        """Add another's times to these."""
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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoleView:
        """Return the view that was turned into plain data."""
        return cls(
            _or_impossible(values["logprob"]), tuple(tuple(entry) for entry in values["top"])
        )


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
        is_end_token: whether the token is one that ends this reply, by itself or as one of the
            request's stop strings; it is not part of the reply.
        with_prompt: whether it came of the same decodes as the prompt: the first token, and
            drafts after it.
        prompt_tokens: length of the prompt, as `Generation` has it.
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
    is_end_token: bool = False
    with_prompt: bool = False
    prompt_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, which has no −inf: what is impossible has None."""
        values = asdict(self)
        for view in (values, *(values["explain"] or {}).values()):
            if view["logprob"] == -math.inf:
                view["logprob"] = None
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Step:
        """Return the step that `to_dict` described."""
        explain = values["explain"]
        return cls(
            **{
                **values,
                "logprob": _or_impossible(values["logprob"]),
                "timings": Timings(**values["timings"]),
                "explain": explain
                and {role: RoleView.from_dict(view) for role, view in explain.items()},
            }
        )


def _or_impossible(logprob: float | None) -> float:
    return -math.inf if logprob is None else logprob


@dataclass(frozen=True)
class Generation:
    """A finished reply.

    Attributes:
        text: the reply, without end token and stop string.
        tokens: the ids generated, without the end token.
        finish_reason: "stop", "length", or "cancelled" if more was to come.
        prompt_tokens: length of the base's prompt, or of the first role's that had weight; other
            roles' prompts may differ. 0 if nothing came.
        timings: summed over the steps.
        seed: that gives this text again.
        drafts_tested, drafts_accepted: drafted tokens that were compared, and that were right.
        came_with_prompt: tokens, the end token included, of the step that also worked through the
            prompt: the first one, and drafts after it.
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
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Generation:
        """Return the reply that `to_dict` described."""
        return cls(**{**values, "timings": Timings(**values["timings"])})


@dataclass
class ReplyBuilder:
    """A reply as its steps come in.

    Attributes:
        request: what it answers.
        text, tokens, timings: so far.
    """

    request: Request
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    _last: Step | None = None
    _n_tested: int = 0
    _n_accepted: int = 0
    _n_with_prompt: int = 0

    @property
    def begun(self) -> bool:
        """Whether more than white space has come."""
        return bool(self.text.strip())

    def take(self, step: Step) -> None:
        """Add the next step."""
        self._last = step
        self.text += step.text
        self.timings.add(step.timings)
        self._n_tested += step.accepted is not None
        self._n_accepted += step.accepted is True
        self._n_with_prompt += step.with_prompt
        if not step.is_end_token:
            self.tokens.append(step.token)

    def generation(self) -> Generation:
        """Return what has come so far; its finish reason is "cancelled" if more was to come."""
        last = self._last
        return Generation(
            self.text,
            self.tokens,
            (last and last.finish_reason) or "cancelled",
            last.prompt_tokens if last else 0,
            self.timings,
            self.request.seed or 0,
            drafts_tested=self._n_tested,
            drafts_accepted=self._n_accepted,
            came_with_prompt=self._n_with_prompt,
        )
