"""What comes out of the emulator: steps, and the replies that they add up to.

Plain data that turns into JSON and back, so that a child process or a server can carry it. A step
says all that a front end needs; nobody has to ask the emulator as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Literal

from .request import Request

FinishReason = Literal["stop", "length", "cancelled"]
EMULATED = "emulated"  # among the roles, the combined distribution


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"logprob": _or_none(self.logprob), "top": [list(entry) for entry in self.top]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoleView:
        """Return the view that was turned into plain data."""
        return cls(
            _or_impossible(values["logprob"]), tuple(tuple(entry) for entry in values["top"])
        )


@dataclass(frozen=True)
class TokenLogprob:
    """A token in a list of the likeliest.

    Attributes:
        token: its id.
        piece: what it prints by itself; control tokens have their text.
        logprob: its log-probability in the combined distribution.
    """

    token: int
    piece: bytes
    logprob: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; the piece's bytes are Latin-1 text there."""
        return {
            "token": self.token,
            "piece": self.piece.decode("latin-1"),
            "logprob": _or_none(self.logprob),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenLogprob:
        """Return what `to_dict` described."""
        piece = values["piece"].encode("latin-1")
        return cls(values["token"], piece, _or_impossible(values["logprob"]))


@dataclass(frozen=True)
class Candidate:
    """A token that was among the likeliest, to the emulation or to a role.

    Attributes:
        token: its id.
        piece: what it prints by itself; control tokens have their text.
        logprobs: role → its log-probability under that model alone; under "emulated" the combined
            one, of which `Step.logprob` says what it is.
    """

    token: int
    piece: bytes
    logprobs: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        logprobs = {role: _or_none(p) for role, p in self.logprobs.items()}
        return {"token": self.token, "piece": self.piece.decode("latin-1"), "logprobs": logprobs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """Return what `to_dict` described."""
        logprobs = {role: _or_impossible(p) for role, p in values["logprobs"].items()}
        return cls(values["token"], values["piece"].encode("latin-1"), logprobs)


@dataclass(frozen=True)
class PromptToken:
    """A token of the prompt, as likely as the combined distribution found it after those before.

    Attributes:
        token: its id.
        piece: what it prints by itself; control tokens have their text.
        logprob: its log-probability, as `Step.logprob`; None where nothing comes before it.
        top: the likeliest tokens in its place; a token has the same number in both.
    """

    token: int
    piece: bytes
    logprob: float | None
    top: tuple[TokenLogprob, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; without a log-probability where there is none."""
        values = TokenLogprob(self.token, self.piece, self.logprob or 0.0).to_dict()
        if self.logprob is None:
            del values["logprob"]
        return values | {"top": [entry.to_dict() for entry in self.top]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PromptToken:
        """Return what `to_dict` described."""
        as_entry = TokenLogprob.from_dict({"logprob": 0.0, **values})
        logprob = as_entry.logprob if "logprob" in values else None
        top = tuple(map(TokenLogprob.from_dict, values["top"]))
        return cls(as_entry.token, as_entry.piece, logprob, top)


@dataclass(frozen=True)
class Step:
    """One generated token with what is known of it.

    Attributes:
        request_id: from `Emulator.submit`.
        index: position in the reply, from 0; the request's `prefix_ids` come before it.
        token: its id; the end token in the step that ends a reply by it.
        text: what can now be shown; empty while a character or a possible stop string is
            incomplete, more than the token's own text afterwards.
        logprob: log-probability of the token in the combined distribution, before a grammar's
            mask, temperature and all other sampling options.
        timings: of this step.
        finish_reason: in the last step of a reply: "stop" (end token or stop string) or "length".
        explain: role → RoleView, where asked for.
        accepted: whether it is the token that was drafted; None where no draft was tested.
        is_end_token: whether the token is one that ends this reply, by itself or as one of the
            request's stop strings; it is not part of the reply.
        with_prompt: whether it came of the same decodes as the prompt: the first token, and
            drafts after it.
        prompt_tokens: length of the prompt, as `Generation` has it.
        piece: what the token prints by itself; control tokens have their text.
        top_logprobs: the likeliest tokens of the combined distribution, best first, where asked
            for; a token has the same number there and in `logprob`.
        prompt_logprobs: in the first step, where asked for: the tokens of the prompt.
        cached_tokens: how many of these were found in the cache, and not decoded.
        stop_string: which of the request's stop strings ended the reply; None where none did.
        candidates: with `explain`, all tokens that are among the n likeliest to the emulation or to
            a role, likeliest under the emulation first.
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
    piece: bytes = b""
    top_logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[PromptToken, ...] = ()
    cached_tokens: int = 0
    stop_string: str | None = None
    candidates: tuple[Candidate, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; what has its default is left out.

        JSON has no −inf, so what is impossible has None, and no bytes: they are Latin-1 text.
        """
        values = {name: v for name, v in vars(self).items() if v != _DEFAULTS.get(name)}
        values |= {"logprob": _or_none(self.logprob), "timings": dict(vars(self.timings))}
        if self.piece:
            values["piece"] = self.piece.decode("latin-1")
        if self.explain is not None:
            values["explain"] = {role: view.to_dict() for role, view in self.explain.items()}
        for name in _LISTS:
            if name in values:
                values[name] = [entry.to_dict() for entry in values[name]]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Step:
        """Return the step that `to_dict` described."""
        given = dict(values)
        given["logprob"] = _or_impossible(given["logprob"])
        given["timings"] = Timings(**given["timings"])
        if "piece" in given:
            given["piece"] = given["piece"].encode("latin-1")
        if "explain" in given:
            views = given["explain"].items()
            given["explain"] = {role: RoleView.from_dict(view) for role, view in views}
        for name, kind in _LISTS.items():
            if name in given:
                given[name] = tuple(map(kind.from_dict, given[name]))
        return cls(**given)


_LISTS: dict[str, Any] = {
    "top_logprobs": TokenLogprob,
    "prompt_logprobs": PromptToken,
    "candidates": Candidate,
}
_DEFAULTS = {f.name: f.default for f in fields(Step) if f.default is not MISSING}


def _or_none(logprob: float) -> float | None:
    return None if logprob == -math.inf else logprob


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
            roles' prompts may differ. `prefix_ids` count. 0 if nothing came.
        timings: summed over the steps.
        seed: that gives this text again.
        drafts_tested, drafts_accepted: drafted tokens that were compared, and that were right.
        came_with_prompt: tokens, the end token included, of the step that also worked through the
            prompt: the first one, and drafts after it.
        cached_tokens: how many tokens of the prompt were found in the cache, and not decoded.
        stop_string: which of the request's stop strings ended it; None where none did.
        steps: of its tokens, where the request asks for the likeliest or for explanations.
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
    cached_tokens: int = 0
    stop_string: str | None = None
    steps: tuple[Step, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second, of those that did not come with the prompt; 0 if all did."""
        seconds = self.timings.after_prompt
        n = len(self.tokens) - self.came_with_prompt
        return n / seconds if n > 0 and seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        bare = asdict(replace(self, steps=()))
        return bare | {"steps": [step.to_dict() for step in self.steps]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Generation:
        """Return the reply that `to_dict` described."""
        steps = tuple(map(Step.from_dict, values["steps"]))
        return cls(**{**values, "timings": Timings(**values["timings"]), "steps": steps})


@dataclass
class ReplyBuilder:
    """A reply as its steps come in.

    Attributes:
        request: what it answers.
        text, tokens, timings, steps: so far; steps as `Generation` has them.
    """

    request: Request
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    timings: Timings = field(default_factory=Timings)
    steps: list[Step] = field(default_factory=list)
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
            if self.request.top_logprobs or self.request.explain:
                self.steps.append(step)

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
            cached_tokens=last.cached_tokens if last else 0,
            stop_string=last.stop_string if last else None,
            steps=tuple(self.steps),
        )
