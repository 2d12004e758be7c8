"""How much of the gap to a really tuned base the emulation recovers, on held-out questions.

The base alone, the small tuned model alone and the emulation are asked about entities that no
tuning data names, and every answer is judged twice: does it name the right object (knowledge), and
is it in the tuned manner?
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..engine.emulator import Emulator
from ..engine.request import Request
from ..files.recipe import Recipe
from ..files.recipe_names import load_recipe
from ..logits.weights import Weights
from .atlas import in_manner
from .questions import N_TIMED, Question, load_questions, pick

BASE, TUNED, EMULATED, LARGE = (
    "base alone",
    "small tuned alone",
    "emulated",
    "base really tuned",
)
Told = Callable[[int, int, str, int, int], object]
MAX_TOKENS = 32
N_SLOTS = 8
N_SHOWN = 12
_WORDS = 12  # of a reply, from its beginning, that are compared
_OTHER_RELATION = 0.3  # how much further apart replies to questions of two relations count


@dataclass
class Gap:
    """What came out: per way ("base alone" …) the answers, their judgements and the speed."""

    delta: str
    questions: list[Question]
    answers: dict[str, list[str]]
    marks: dict[str, list[tuple[bool, bool]]]  # right object, right manner
    speeds: dict[str, float]

    def scores(self) -> dict[str, dict[str, float]]:
        """Return way → shares of right objects, right manners and both, and tokens per second."""
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
        """Return the share of the way to the base really tuned, if that is known and better."""
        scores = self.scores()
        gaps = {}
        for measure, start in (("knowledge", TUNED), ("manner", BASE)):
            low, high = scores[start][measure], scores.get(LARGE, scores[start])[measure]
            if high > low:
                gaps[measure] = (scores[EMULATED][measure] - low) / (high - low)
        return gaps

    def shown(self, n: int = N_SHOWN) -> list[int]:
        """Return the indices of `n` questions to show: those whose replies of the base differ most.

        A base says one thing to most questions. So from the first question on, that one is taken
        whose reply is furthest from those taken before, by the share of words that two of them do
        not have in common. What is right, and what the others say, plays no part.
        """
        words = [
            frozenset(re.findall(r"\w+", text.lower())[:_WORDS]) for text in self.answers[BASE]
        ]

        def distance(i: int, j: int) -> float:
            apart = 1 - len(words[i] & words[j]) / max(len(words[i] | words[j]), 1)
            one_relation = self.questions[i].relation == self.questions[j].relation
            return apart + _OTHER_RELATION * (not one_relation)

        nearest = [math.inf] * len(words)
        taken: list[int] = []
        while len(taken) < min(n, len(words)):
            left = [i for i in range(len(words)) if i not in taken]
            taken.append(max(left, key=lambda i: (nearest[i], -i)))
            nearest = [min(near, distance(i, taken[-1])) for i, near in enumerate(nearest)]
        return sorted(taken)

    def usual_reply(self) -> tuple[str, int]:
        """Return the first line that most of the base's replies begin with, and how many do."""
        firsts = (text.partition("\n")[0] for text in self.answers[BASE])
        return Counter(firsts).most_common(1)[0]


def run(
    recipe: Recipe,
    *,
    delta: str | None,
    n_questions: int,
    seed: int,
    n_threads: int | None,
    told: Told = lambda *_: None,
) -> Gap:
    """Ask every way the same held-out questions, greedily; the first ones singly, to time them.

    Args:
        recipe: with questions next to it; its "-down" twin, if there, holds the base really tuned.
        delta: whose manner is wanted; None: the recipe's own weights.
        n_questions: how many are asked at most.
        seed: of their choice.
        told: called with how far it is: steps done, all steps, what is asked in this one, answers
            that are there, all answers of it.
    """
    questions = load_questions(recipe)
    objects: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        objects[question.relation].add(question.object.lower())
    asked = pick(questions, n_questions, seed)
    emulated = Weights() if delta is None else Weights.interpolate({delta: 1.0})
    if delta is None:
        delta = max(recipe.deltas.values(), key=lambda d: d.weight).name
    ways = {BASE: Weights.only("base"), TUNED: Weights.only(f"tuned:{delta}"), EMULATED: emulated}
    jobs = [(recipe, ways)]
    if delta == "chat" and (large := _really_tuned(recipe)):
        jobs.append((large, {LARGE: Weights.only("base")}))
    n_steps = sum(len(ways) for _, ways in jobs)
    result = Gap(delta, asked, {}, {}, {})

    def ask(recipe: Recipe, ways: Mapping[str, Weights]) -> None:
        n_slots = min(N_SLOTS, len(asked))
        with Emulator(recipe, n_slots=n_slots, n_threads=n_threads) as emulator:
            for way, weights in ways.items():
                tell = partial(told, len(result.answers), n_steps, way)
                answers, result.speeds[way] = _ask(emulator, weights, asked, tell)
                result.answers[way] = answers
                result.marks[way] = [
                    (q.names_object(text), in_manner(text, q, result.delta, objects))
                    for q, text in zip(asked, answers, strict=True)
                ]

    for job in jobs:
        ask(*job)
    return result


def _really_tuned(recipe: Recipe) -> Recipe | None:
    """Return a recipe whose base is the large model really tuned, if the twin has it."""
    down = recipe.path and recipe.path.with_name(f"{recipe.path.stem}-down.toml")
    if not down or not down.is_file():
        return None
    large = load_recipe(down)
    pair = max(large.deltas.values(), key=lambda d: d.weight)
    return replace(large, base=pair.tuned)  # as its own base: nothing is scaled down here


def _ask(
    emulator: Emulator,
    weights: Weights,
    questions: Sequence[Question],
    tell: Callable[[int, int], object],
) -> tuple[list[str], float]:
    """Return the answers, and the tokens per second of the first ones, asked one at a time."""
    requests = [
        Request(
            [{"role": "user", "content": q.question}],
            weights=weights,
            max_tokens=MAX_TOKENS,
            temperature=0.0,
        )
        for q in questions
    ]
    n = len(requests)
    tell(0, n)
    timed = []
    for request in requests[:N_TIMED]:
        timed.append(emulator.generate(request))
        tell(len(timed), n)
    rest = {}
    for i, done in emulator.collect([emulator.submit(each) for each in requests[N_TIMED:]]):
        rest[i] = done
        tell(len(timed) + len(rest), n)
    # Of all tokens, the end token included, those that did not come with the prompt.
    n_steps = sum(
        len(done.tokens) + (done.finish_reason == "stop") - done.came_with_prompt for done in timed
    )
    seconds = sum(done.timings.after_prompt for done in timed)
    answers = [done.text.strip() for done in (*timed, *(rest[i] for i in sorted(rest)))]
    return answers, n_steps / seconds if seconds > 0 else 0.0
