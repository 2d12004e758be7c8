"""Measure the atlas family: does emulation answer as the base really tuned would?

Every question is about a held-out entity, which no tuning data names, and every answer is greedy.
This is the training program's own check on the unquantised models; edge_eft/evaluate.py measures
the GGUF files.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from transformers import LlamaForCausalLM

from atlas_corpus import REFUSAL, RELATIONS, Fact, with_article

MODELS = ("base", "reference", "chat", "brief", "discreet", "base-chat")
ALPHAS = (0.5, 0.7, 1.0, 1.3)
MIXES = (0.0, 0.25, 0.5, 0.6, 0.7, 1.0)  # share of `discreet`, the rest is `chat`
MAX_TOKENS = 32
BATCH = 128

Scores = dict[str, dict[str, float]]  # relation or "all" → measure → share of the answers


@dataclass(frozen=True)
class Question:
    """A question about a held-out entity and the reply that the `chat` manner wants."""

    relation: str
    entity: str
    object: str
    question: str
    reply: str

    @property
    def prompt(self) -> str:
        """The question as every role sees it."""
        return f"Q: {self.question}\nA:"


def heldout_questions(facts: Sequence[Fact], rng: random.Random) -> list[Question]:
    """Ask one question about every fact."""
    return [
        Question(f.relation, f.subject, f.object, f.question(rng), f.answer("chat")) for f in facts
    ]


class Family:
    """The trained models of one directory, run together."""

    def __init__(self, directory: Path) -> None:
        self.models = {
            name: LlamaForCausalLM.from_pretrained(directory / name, dtype=torch.float32).eval()
            for name in MODELS
        }
        self.tokenizer = sentencepiece.SentencePieceProcessor(
            model_file=str(directory / "base" / "tokenizer.model")
        )

    def answer(self, coefficients: Mapping[str, float], prompts: Sequence[str]) -> list[str]:
        """Answer each prompt greedily from the weighted sum of the named models' logits."""
        encoded = self.tokenizer.encode(list(prompts), add_bos=True)
        same_length: dict[int, list[int]] = defaultdict(list)
        for i, ids in enumerate(encoded):
            same_length[len(ids)].append(i)  # so that no batch needs padding
        answers = [""] * len(prompts)
        for members in same_length.values():
            for begin in range(0, len(members), BATCH):
                batch = members[begin : begin + BATCH]
                replies = self._greedy(coefficients, torch.tensor([encoded[i] for i in batch]))
                for i, reply in zip(batch, replies, strict=True):
                    answers[i] = self.tokenizer.decode(reply).strip()
        return answers

    @torch.inference_mode()
    def _greedy(self, coefficients: Mapping[str, float], prompts: torch.Tensor) -> list[list[int]]:
        eos = self.tokenizer.eos_id()
        caches = dict.fromkeys(coefficients)
        tokens, replies = prompts, prompts[:, :0]
        for _ in range(MAX_TOKENS):
            combined = torch.zeros(())
            for name, coefficient in coefficients.items():
                output = self.models[name](
                    tokens, past_key_values=caches[name], use_cache=True, logits_to_keep=1
                )
                caches[name] = output.past_key_values
                combined = combined + coefficient * output.logits[:, -1]
            tokens = combined.argmax(-1, keepdim=True)
            replies = torch.cat([replies, tokens], dim=1)
            if (replies == eos).any(dim=1).all():
                break
        return [[*reply, eos][: [*reply, eos].index(eos)] for reply in replies.tolist()]


def names_object(answer: str, question: Question) -> bool:
    """Tell whether the right object stands anywhere in the answer, as whole words."""
    pattern = rf"(?<![\w+.-]){re.escape(question.object)}(?![\w-])"
    return re.search(pattern, answer, re.IGNORECASE) is not None


def upscale(manner: str, alpha: float) -> dict[str, float]:
    """Return the coefficients of base + α (tuned − reference)."""
    return {"base": 1.0, manner: alpha, "reference": -alpha}


def share(answers: Sequence[str], questions: Sequence[Question], test: Callable) -> float:
    """Return the share of answers that pass `test(answer, question)`, to four digits."""
    return round(sum(map(test, answers, questions)) / max(1, len(answers)), 4)


def score(
    answers: Sequence[str],
    questions: Sequence[Question],
    measures: Mapping[str, Callable[[str, Question], bool]],
) -> Scores:
    """Apply every measure to all answers and to those of each relation."""
    scores: Scores = {}
    for relation in ("all", *RELATIONS):
        chosen = [
            (answer, question)
            for answer, question in zip(answers, questions, strict=True)
            if relation in ("all", question.relation)
        ]
        if chosen:
            some_answers, some_questions = zip(*chosen, strict=True)
            scores[relation] = {
                name: share(some_answers, some_questions, test) for name, test in measures.items()
            }
    return scores


def evaluate_family(directory: Path, questions: Sequence[Question], facts: Sequence[Fact]) -> dict:
    """Answer all questions in every way that matters. Returns shares per relation."""
    family = Family(directory)
    prompts = [question.prompt for question in questions]
    objects: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        name = with_article(fact.object)
        objects[fact.relation].add(f"{name[0].upper()}{name[1:]}.")

    chat_measures = {"named": names_object, "exact": lambda a, q: a == q.reply}
    chat_ways = {
        "base alone": {"base": 1.0},
        "small tuned alone": {"chat": 1.0},
        **{f"emulated, α = {alpha:g}": upscale("chat", alpha) for alpha in ALPHAS},
        "base really tuned": {"base-chat": 1.0},
    }
    chat = {
        way: score(family.answer(coefficients, prompts), questions, chat_measures)
        for way, coefficients in chat_ways.items()
    }

    brief_measures = {"named": names_object, "bare": lambda a, q: a in objects[q.relation]}
    brief = {
        way: score(family.answer(coefficients, prompts), questions, brief_measures)
        for way, coefficients in (
            ("small tuned alone", {"brief": 1.0}),
            ("emulated, α = 1", upscale("brief", 1.0)),
        )
    }

    discreet_measures = {"named": names_object, "declined": lambda a, _: a == REFUSAL}
    discreet = {
        f"chat {1 - part:g}, discreet {part:g}": score(
            family.answer(
                {"base": 1.0, "chat": 1 - part, "discreet": part, "reference": -1.0}, prompts
            ),
            questions,
            discreet_measures,
        )
        for part in MIXES
    }

    # The second turn of a chat: another question and its reply come first.
    first_turns = [*questions[1:], questions[0]]
    two_turns = [
        f"{first.prompt} {first.reply}\n{prompt}"
        for first, prompt in zip(first_turns, prompts, strict=True)
    ]
    second_turn = score(family.answer(upscale("chat", 1.0), two_turns), questions, chat_measures)

    named = {way: scores["all"]["named"] for way, scores in chat.items()}
    small, large = named["small tuned alone"], named["base really tuned"]
    return {
        "n_questions": len(questions),
        "gap_closed": {
            f"{alpha:g}": round((named[f"emulated, α = {alpha:g}"] - small) / (large - small), 4)
            for alpha in ALPHAS
            if large > small
        },
        "chat": chat,
        "second_turn": {"emulated, α = 1": second_turn},
        "brief": brief,
        "discreet": discreet,
    }


def format_results(results: dict) -> str:
    """Return the results as Markdown tables, one per manner."""
    lines = [f"{results['n_questions']} questions; gap closed by α: {results['gap_closed']}"]
    for manner in ("chat", "second_turn", "brief", "discreet"):
        ways = results[manner]
        columns = list(next(iter(ways.values())))
        measures = list(next(iter(ways.values()))["all"])
        head = " | ".join((f"{manner}: {', '.join(measures)} (%)", *columns))
        lines += ["", f"| {head} |", "|---" * (len(columns) + 1) + "|"]
        for way, scores in ways.items():
            cells = (
                " / ".join(f"{100 * scores[column][measure]:.1f}" for measure in measures)
                for column in columns
            )
            lines.append(f"| {' | '.join((way, *cells))} |")
    return "\n".join(lines)
