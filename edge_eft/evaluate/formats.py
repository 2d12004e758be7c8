"""Which prompt format suits models: found by trying.

A base never saw the chat template of the tuned model, or saw it all through its pre-training; no
header says which. So `tuned` is asked easy questions, and each format of base and reference is
judged by how likely the emulation then finds the replies.

Only right replies count, where there are any: a base that understands its prompt makes a wrong one
unlikely. And base and reference are told alike, since their rows are subtracted: what a format does
to both of them cancels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..engine.emulator import Emulator
from ..engine.pairs import has_template
from ..engine.prompting import prompt_format, runner_of, use_formats
from ..errors import PromptError
from ..files.gguf_check import read_header
from ..files.recipe import Recipe
from ..logits.weights import Weights
from ..text.formats import FORMATS, is_named
from ..text.prompt_format import PromptFormat
from .rows import AT_ONCE, LogProbs, greedy_reply, reply_rows, with_end

OnStep = Callable[[int, int, str], object]  # done, total, what comes next

CLOSE = 0.1  # nats per token: less does not decide between formats
MAX_TOKENS = 24
_CHATML = "<|im_start|>"


class Question(NamedTuple):
    """What a small model may know, and the words of which a right reply has one."""

    text: str
    answers: tuple[str, ...]

    @property
    def messages(self) -> list[dict[str, str]]:
        """The question as a conversation."""
        return [{"role": "user", "content": self.text}]

    def is_answered(self, reply: str) -> bool:
        """Return whether one of the answers stands in a reply, as a whole word."""
        words = "|".join(map(re.escape, self.answers))
        return re.search(rf"(?<!\w)(?:{words})(?!\w)", reply, re.IGNORECASE) is not None


QUESTIONS = (
    Question("What is the capital of France?", ("Paris",)),
    Question("Which country is Shanghai in?", ("China",)),
    Question("What is 2 plus 3?", ("5", "five")),
    Question("What is the capital of Spain?", ("Madrid",)),
    Question("What color is grass?", ("green",)),
    Question("What is the currency of the United States?", ("dollar", "dollars", "USD")),
    Question("On which continent is France?", ("Europe",)),
    Question("What is the opposite of hot?", ("cold",)),
)
ENOUGH = 5  # right replies


class Told(NamedTuple):
    """The prompt formats of base and reference."""

    base: str
    reference: str


@dataclass(frozen=True)
class Score:
    """How likely replies are: mean log-probability per token, in nats.

    Attributes:
        base, reference: under each of them by itself.
        emulated: under base + tuned − reference.
    """

    base: float
    reference: float
    emulated: float


@dataclass(frozen=True)
class Trial:
    """What was tried and what came of it.

    Attributes:
        told: the formats that base and reference are best told.
        scores: of each that was tried, in the order of preference.
        tuned: the format of tuned; `own`: its mean log-probability per token of its replies.
        n_asked: questions. n_right: of tuned's replies to them. n_scored: replies that counted.
        example: a question that tuned answers right, if there is one.
    """

    told: Told
    scores: Mapping[Told, Score]
    tuned: str
    own: float
    n_asked: int
    n_right: int
    n_scored: int
    example: str = QUESTIONS[0].text

    @property
    def gain(self) -> float:
        """What the delta adds to the replies' log-probability per token, over the base's own."""
        score = self.scores[self.told]
        return score.emulated - score.base


class Reply(NamedTuple):
    """A reply of tuned.

    Attributes:
        tokens: with the end token where it ended by itself. ended: whether it did, and said
            something.
        right: whether it answers the question.
    """

    question: Question
    tokens: list[int]
    right: bool
    ended: bool


def find_formats(
    emulator: Emulator,
    *,
    given: Mapping[str, str] = MappingProxyType({}),
    among: Sequence[str] = FORMATS,
    questions: Sequence[Question] = QUESTIONS,
    until: float = math.inf,
    on_step: OnStep = lambda done, total, what: None,
) -> Trial:
    """Try prompt formats on a recipe of one delta, and use those that suit it best from now on.

    Args:
        emulator: in which no request is in work.
        given: "base", "reference" or "tuned" → the format that it has in any case. A reference is
            told what the base is.
        among: formats of base and reference to choose from; what they cannot be told is left out.
        until: when to end, of `perf_counter`; one question is asked in any case.
        on_step: called before every step.

    Raises:
        PromptError: a role cannot be told its format. And as `Emulator.generate`.
    """
    (delta,) = emulator.deltas
    scorer = _Scorer(emulator, delta, _pairs(emulator, delta, given, among))
    total = 2 * len(questions)
    spec, replies = _replies(
        emulator, delta, given, questions, until, lambda i: on_step(i, total, "asking tuned")
    )
    n_right = sum(reply.right for reply in replies)
    scored = [reply for reply in replies if reply.tokens and (reply.right or not n_right)]
    for i, reply in enumerate(scored):
        if i and perf_counter() > until:
            break
        on_step(len(questions) + i, total, "scoring its replies")
        scorer.score(reply)
    on_step(total, total, "")
    scores = scorer.means()
    told = best(scores)
    use_formats(emulator, {"base": told.base, f"reference:{delta}": told.reference})
    example = next((reply.question for reply in replies if reply.right), questions[0])
    return Trial(
        told, scores, spec, scorer.own, len(replies), n_right, scorer.n, example=example.text
    )


def ask_reference(
    emulator: Emulator, *, until: float = math.inf, questions: Sequence[Question] = QUESTIONS
) -> tuple[int, int]:
    """Return how many questions the reference was asked, as a tuned model is, and answered right.

    It answers better than tuned where the two are exchanged. The formats stay as they are.
    """
    (delta,) = emulator.deltas
    role = f"reference:{delta}"
    before = runner_of(emulator, role).prompt.spec
    if "template" in formats_of(emulator, role):
        use_formats(emulator, {role: "template"})
    try:
        replies = _ask(emulator, role, questions, until, lambda i: None)
    finally:
        use_formats(emulator, {role: before})
    return len(replies), sum(reply.right for reply in replies)


def to_try(recipe: Recipe, given: Mapping[str, str]) -> Recipe:
    """Return a recipe of one delta as it is loaded to find its formats: no template is needed.

    Args:
        given: as of `find_formats`.

    Raises:
        ModelFileError: a file is not a model.
    """
    (delta,) = recipe.deltas
    roles = recipe.roles()
    tuned, reference = roles[f"tuned:{delta}"], roles[f"reference:{delta}"]
    base_format = given.get("base", "plain")
    formats = {
        "base": base_format,
        f"reference:{delta}": given.get("reference", base_format),
        f"tuned:{delta}": given.get("tuned", tuned.prompt or "template"),
    }
    if formats[f"tuned:{delta}"] == "template" and not any(
        has_template(read_header(spec.file)) for spec in (tuned, reference)
    ):
        formats[f"tuned:{delta}"] = "plain"  # a format to begin with
    models = recipe.models()
    return recipe.with_models(
        {role: replace(models[role], prompt=spec) for role, spec in formats.items()}
    )


def best(scores: Mapping[Told, Score]) -> Told:
    """Return the formats under which the emulation finds the replies likeliest.

    Of those that are as good as the best (`CLOSE`) it is the one under which base and reference by
    themselves do; and of those that are as good in this, too, the first.
    """
    emulated = {told: score.emulated for told, score in scores.items()}
    alone = {told: (scores[told].base + scores[told].reference) / 2 for told in _close(emulated)}
    return _close(alone)[0]


def _close(values: Mapping[Told, float]) -> list[Told]:
    top = max(values.values())
    return [told for told, value in values.items() if value >= top - CLOSE]


def formats_of(emulator: Emulator, role: str) -> dict[str, PromptFormat]:
    """Return those of FORMATS that a role's model can be told: name → format."""
    runner = runner_of(emulator, role)
    found = {}
    for spec in FORMATS:
        marks = runner.model.tokenize(_CHATML, parse_special=True) if spec == "chatml" else [0]
        if len(marks) > 1:
            continue  # its marks would be words to this model
        try:
            made = prompt_format(emulator, role, spec)
            _encode(made, QUESTIONS[0])
        except PromptError:
            continue  # there is no template, or it cannot be rendered
        found[spec] = made
    return found


def _pairs(
    emulator: Emulator, delta: str, given: Mapping[str, str], among: Sequence[str]
) -> list[Told]:
    """Return the formats to choose from; those that come to the same prompts once."""
    if "base" in given:
        return [Told(given["base"], given.get("reference", given["base"]))]
    base, reference = formats_of(emulator, "base"), formats_of(emulator, f"reference:{delta}")
    if "reference" in given:
        return [Told(spec, given["reference"]) for spec in among if spec in base]
    pairs: dict[tuple[tuple[int, ...], ...], Told] = {}
    for spec in among:
        if spec in base and spec in reference:
            prompts = (_encode(each[spec], QUESTIONS[0]) for each in (base, reference))
            pairs.setdefault(tuple(map(tuple, prompts)), Told(spec, spec))
    return list(pairs.values())


def _encode(told: PromptFormat, question: Question) -> list[int]:
    return told.encode(question.messages, template_kwargs=AT_ONCE)


def _replies(
    emulator: Emulator,
    delta: str,
    given: Mapping[str, str],
    questions: Sequence[Question],
    until: float,
    asking: Callable[[int], object],
) -> tuple[str, list[Reply]]:
    """Return tuned's format, and its replies.

    Without one given, or a template of its own (a recipe of an adapter states that), it is the one
    under which most replies are right and end by themselves.
    """
    role = f"tuned:{delta}"
    stated = given.get("tuned", runner_of(emulator, role).prompt.spec)
    formats = [stated]
    if "tuned" not in given and is_named(stated):
        known = formats_of(emulator, role)
        formats = ["template"] if "template" in known else [*known]
    tried = {}
    for spec in formats:
        use_formats(emulator, {role: spec})
        tried[spec] = _ask(emulator, role, questions, until, asking)
    spec = max(tried, key=lambda spec: _goodness(tried[spec]))
    use_formats(emulator, {role: spec})
    if not any(reply.tokens for reply in tried[spec]):
        raise PromptError(f"tuned says nothing to the questions that it is asked ({spec:.40})")
    return spec, tried[spec]


def _ask(
    emulator: Emulator,
    role: str,
    questions: Sequence[Question],
    until: float,
    asking: Callable[[int], object],
) -> list[Reply]:
    """Return the replies of one role, until enough of them are right."""
    replies: list[Reply] = []
    for i, question in enumerate(questions):
        if i and (sum(reply.right for reply in replies) == ENOUGH or perf_counter() > until):
            break
        asking(i)
        done = greedy_reply(emulator, question.text, Weights.only(role), MAX_TOKENS, until)
        ended = done.finish_reason == "stop" and bool(done.text.strip())
        right = question.is_answered(done.text)
        replies.append(Reply(question, with_end(emulator, done), right, ended))
    return replies


def _goodness(replies: Sequence[Reply]) -> tuple[int, int, int]:
    """Return how many are right and end, are right, and end by themselves."""
    return (
        sum(reply.right and reply.ended for reply in replies),
        sum(reply.right for reply in replies),
        sum(reply.ended for reply in replies),
    )


class _Scorer:
    """Scores replies under several formats of base and reference."""

    def __init__(self, emulator: Emulator, delta: str, pairs: Sequence[Told]) -> None:
        self._roles = ("base", f"tuned:{delta}", f"reference:{delta}")
        self._coefficients = Weights().coefficients(emulator.deltas)
        self._runners = {role: runner_of(emulator, role) for role in self._roles}
        self._log_probs = LogProbs(emulator)
        base, _, reference = self._roles
        self._formats = {
            told: {
                base: prompt_format(emulator, base, told.base),
                reference: prompt_format(emulator, reference, told.reference),
            }
            for told in pairs
        }
        self._sums: dict[Told, list[float]] = {told: [0.0, 0.0, 0.0] for told in pairs}
        self._own = 0.0
        self.n = 0

    @property
    def own(self) -> float:
        """Mean over the replies of tuned's own log-probability per token."""
        return self._own / self.n

    def means(self) -> dict[Told, Score]:
        """Return the formats and their scores: means over the replies."""
        return {told: Score(*(each / self.n for each in sums)) for told, sums in self._sums.items()}

    def score(self, reply: Reply) -> None:
        """Add a reply to the means."""
        base, tuned, reference = self._roles
        places = np.arange(len(reply.tokens)), np.array(reply.tokens)
        rows = {tuned: self._rows(tuned, self._runners[tuned].prompt, reply)}
        self._own += float(self._log_probs.alone(tuned, rows[tuned])[places].mean())
        for told, formats in self._formats.items():
            rows |= {role: self._rows(role, each, reply) for role, each in formats.items()}
            found = (
                self._log_probs.alone(base, rows[base]),
                self._log_probs.alone(reference, rows[reference]),
                self._log_probs.combined(rows, self._coefficients),
            )
            for i, log_p in enumerate(found):
                self._sums[told][i] += float(log_p[places].mean())
        self.n += 1

    def _rows(self, role: str, told: PromptFormat, reply: Reply) -> np.ndarray:
        return reply_rows(self._runners[role], _encode(told, reply.question), reply.tokens)
