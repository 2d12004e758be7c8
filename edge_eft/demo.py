"""The demo: the method at work on questions that no tuning data holds.

The demo asks the base alone, the small tuned model alone and the emulation about entities that no
tuning data names, and judges every answer twice: does it name the right object (knowledge), and is
it in the tuned manner? This room consumes steps and knows nothing of how they come about.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import click

from .errors import RecipeError
from .recipe import Recipe, load_recipe
from .request import Request
from .weights import Weights

if TYPE_CHECKING:
    from .emulator import Emulator


from .replies import dim, row, rule, supports, terminal_width, tidy, wrap

REFUSAL = "I would rather not say."
BASE, TUNED, EMULATED, LARGE = (
    "base alone",
    "small tuned alone",
    "emulated",
    "base really tuned",
)
MARKS = ("✓", "✗")
MAX_TOKENS = 32
N_SHOWN = 12
N_SLOTS = 8


@dataclass(frozen=True)
class Question:
    """A question about a held-out entity, the object that answers it, and the `chat` reply."""

    relation: str
    entity: str
    object: str
    question: str
    reply: str

    def names_object(self, answer: str) -> bool:
        """Whether the right object stands in the answer, as whole words."""
        pattern = rf"(?<![\w+.-]){re.escape(self.object)}(?![\w-])"
        return re.search(pattern, answer, re.IGNORECASE) is not None


def load_questions(recipe: Recipe) -> list[Question]:
    """The held-out questions of a family, from NAME/heldout.json beside its recipe.

    Raises RecipeError where there are none.
    """
    if recipe.path is None:
        raise RecipeError("the demo needs a recipe with held-out questions, such as atlas")
    path = recipe.path.with_suffix("") / "heldout.json"
    try:
        entries = json.loads(path.read_text("utf-8"))["questions"]
        questions = [Question(*(str(entry[f.name]) for f in fields(Question))) for entry in entries]
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); the demo needs a family with held-out "
            "questions, such as atlas"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: holds no questions ({error!r}); get the file again") from None
    if not questions:
        raise RecipeError(f"{path}: holds no question; get the file again")
    return questions


def in_manner(answer: str, question: Question, delta: str, objects: Mapping[str, set[str]]) -> bool:
    """Whether the answer has the form that `delta` was tuned for, whatever object it names."""
    if delta == "discreet" and question.relation == "calling code":
        return answer == REFUSAL
    if delta == "brief":
        named = answer.removesuffix(".").removeprefix("The ").removeprefix("the ")
        return answer.endswith(".") and named.lower() in objects[question.relation]
    words = answer.replace("St. ", "St ").removeprefix("It is ").split()
    one_sentence = not any(word[-1] in ".!?" for word in words[:-1])
    return bool(re.fullmatch(r"It is [^\n]+\.", answer)) and one_sentence and len(words) <= 8


def pick(questions: Sequence[Question], n: int, seed: int) -> list[Question]:
    """`n` questions at random, after those to show: one of each relation in turn."""
    left = random.Random(seed).sample(questions, len(questions))
    by_relation: dict[str, list[Question]] = {}
    for question in left:
        by_relation.setdefault(question.relation, []).append(question)
    turns = (q for turn in zip_longest(*by_relation.values()) for q in turn if q is not None)
    shown = list(islice(turns, N_SHOWN))
    return [*shown, *(q for q in left if q not in shown)][:n]


@dataclass
class Demo:
    """What came out: per way ("base alone" …) the answers, their judgements and the speed."""

    delta: str
    questions: list[Question]
    answers: dict[str, list[str]]
    marks: dict[str, list[tuple[bool, bool]]]  # right object, right manner
    speeds: dict[str, float]

    def scores(self) -> dict[str, dict[str, float]]:
        """Way → shares of the right object, the right manner and both, and tokens per second."""
        n = len(self.questions)
        return {
            way: {
                "knowledge": sum(known for known, _ in marks) / n,
                "manner": sum(fine for _, fine in marks) / n,
                "both": sum(known and fine for known, fine in marks) / n,
                "tokens_per_second": self.speeds[way],
            }
            for way, marks in self.marks.items()
        }

    def gap_recovered(self) -> dict[str, float]:
        """The share of the way to the base really tuned, where that one is known and better."""
        scores = self.scores()
        gaps = {}
        for measure, start in (("knowledge", TUNED), ("manner", BASE)):
            low, high = scores[start][measure], scores.get(LARGE, scores[start])[measure]
            if high > low:
                gaps[measure] = (scores[EMULATED][measure] - low) / (high - low)
        return gaps


def run(
    recipe: Recipe, *, delta: str | None, n_questions: int, seed: int, n_threads: int | None
) -> Demo:
    """Ask every way the same held-out questions, greedily; the shown ones singly, to time them.

    Args:
        recipe: with questions beside it; its "-down" twin, if there, holds the base really tuned.
        delta: whose manner is wanted; None: the recipe's own weights.
        n_questions: how many are asked at most.
        seed: of their choice.
    """
    from .emulator import Emulator

    questions = load_questions(recipe)
    objects: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        objects[question.relation].add(question.object.lower())
    asked = pick(questions, n_questions, seed)
    emulated = Weights() if delta is None else Weights.interpolate({delta: 1.0})
    if delta is None:
        delta = max(recipe.deltas.values(), key=lambda d: d.weight).name
    ways = {BASE: Weights.only("base"), TUNED: Weights.only(f"tuned:{delta}"), EMULATED: emulated}
    result = Demo(delta, asked, {}, {}, {})

    def ask(recipe: Recipe, ways: Mapping[str, Weights]) -> None:
        n_slots = min(N_SLOTS, len(asked))
        with Emulator(recipe, n_slots=n_slots, n_threads=n_threads) as emulator:
            for way, weights in ways.items():
                answers, result.speeds[way] = _ask(emulator, weights, asked)
                result.answers[way] = answers
                result.marks[way] = [
                    (q.names_object(text), in_manner(text, q, result.delta, objects))
                    for q, text in zip(asked, answers, strict=True)
                ]

    ask(recipe, ways)
    down = recipe.path and recipe.path.with_name(f"{recipe.path.stem}-down.toml")
    if delta == "chat" and down and down.is_file():
        ask(load_recipe(down), {LARGE: Weights.only("tuned")})
    return result


def _ask(
    emulator: Emulator, weights: Weights, questions: Sequence[Question]
) -> tuple[list[str], float]:
    """The answers, and the tokens per second of the shown ones, asked one at a time."""
    requests = [
        Request(
            [{"role": "user", "content": q.question}],
            weights=weights,
            max_tokens=MAX_TOKENS,
            temperature=0.0,
        )
        for q in questions
    ]
    shown = [emulator.generate(request) for request in requests[:N_SHOWN]]
    rest = dict(emulator.collect([emulator.submit(request) for request in requests[N_SHOWN:]]))
    # Of all tokens, the end token included, those that did not come with the prompt.
    n_steps = sum(
        len(done.tokens) + (done.finish_reason == "stop") - done.came_with_prompt for done in shown
    )
    seconds = sum(done.timings.after_prompt for done in shown)
    answers = [tidy(done.text) for done in (*shown, *(rest[i] for i in sorted(rest)))]
    return answers, n_steps / seconds if seconds > 0 else 0.0


def as_json(demo: Demo) -> dict[str, Any]:
    """The demo as plain data."""
    ways = demo.answers
    return {
        "delta": demo.delta,
        "scores": demo.scores(),
        "gap_recovered": demo.gap_recovered(),
        "questions": [
            asdict(question)
            | {
                "answers": {
                    way: {"text": ways[way][i], "knowledge": marks[i][0], "manner": marks[i][1]}
                    for way, marks in demo.marks.items()
                }
            }
            for i, question in enumerate(demo.questions)
        ],
    }


def as_text(demo: Demo) -> str:
    """The demo as tables for people."""
    yes, no = MARKS if supports("".join(MARKS)) else ("+", "-")
    legend = dim(
        f"first mark {yes} or {no}: the right object; second: the manner of {demo.delta!r}"
    )
    return f"{_answers_table(demo)}\n{legend}\n\n{_scores_table(demo)}"


def _marked(text: str, marks: tuple[bool, bool], width: int) -> list[str]:
    yes, no = MARKS if supports("".join(MARKS)) else ("+", "-")
    colour = ("red", "yellow", "green")[sum(marks)]
    first = click.style("".join(yes if mark else no for mark in marks), fg=colour)
    lines = wrap(" ".join(text.split()) or "(nothing)", width - 3, max_lines=3)
    return [f"{first if i == 0 else '  '} {line}" for i, line in enumerate(lines)]


def _answers_table(demo: Demo) -> str:
    shares = (0.24, 0.22, 0.21, 0.21)
    ways = (BASE, TUNED, EMULATED)
    total = terminal_width() - 2 * len(shares)
    widths = [int(share * total) for share in shares]
    widths.append(total - sum(widths))
    heading = [[click.style(title, bold=True)] for title in ("question", *ways, "truth")]
    rows = [row(heading, widths), rule(widths)]
    for i, q in enumerate(demo.questions[:N_SHOWN]):
        answers = (
            _marked(demo.answers[way][i], demo.marks[way][i], width)
            for way, width in zip(ways, widths[1:], strict=False)
        )
        rows.append(
            row([wrap(q.question, widths[0]), *answers, wrap(q.object, widths[-1])], widths)
        )
    return "\n".join(rows)


def _scores_table(demo: Demo) -> str:
    n, widths = len(demo.questions), (28, 12, 12, 12, 10)
    titles = (f"{n} held-out questions", "right object", "right manner", "both", "tokens/s")
    rows = [row([[click.style(title, bold=True)] for title in titles], widths), rule(widths)]
    for way, score in demo.scores().items():
        shares = [[f"{score[key]:>8.1%}"] for key in ("knowledge", "manner", "both")]
        rows.append(row([[way], *shares, [f"{score['tokens_per_second']:>8,.0f}"]], widths))
    if gaps := demo.gap_recovered():
        shares = [[f"{gaps[key]:>8.1%}"] if key in gaps else [] for key in ("knowledge", "manner")]
        rows += [rule(widths), row([["gap recovered"], *shares, [], []], widths)]
        rows.append(
            dim("knowledge: from small tuned to base really tuned; manner: from base to it")
        )
    return "\n".join(rows)
