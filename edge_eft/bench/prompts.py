"""What is asked in a benchmark if no file of prompts is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..engine.request import Messages, Prompt
from ..errors import RecipeError
from ..evaluate.questions import load_questions, pick
from ..files.recipe import Recipe

N_PROMPTS = 40

_TOPICS = """
the water cycle; photosynthesis; how vaccines work; plate tectonics; compound interest;
how a bicycle stays upright; the causes of the First World War; the rules of chess; why
the sky is blue; how bread rises; the life of Marie Curie; how tides arise; supply and
demand; how a transistor works; the parts of a letter; public-key cryptography; how honey
is made; the phases of the moon; the Silk Road; how rainbows form
"""
_FORMS = ("Explain {} to a ten-year-old.", "Write a short paragraph about {} with one example.")


def message(text: str) -> Prompt:
    """Return a prompt of one user turn."""
    return [{"role": "user", "content": text}]


def default_prompts(recipe: Recipe) -> list[Prompt]:
    """Return 40 held-out questions of a family that has some, else general ones."""
    try:
        questions = load_questions(recipe)
    except RecipeError:
        topics = " ".join(_TOPICS.split()).split("; ")
        return [message(form.format(topic)) for form in _FORMS for topic in topics]
    return [message(question.question) for question in pick(questions, N_PROMPTS, 0)]


def last_text(prompt: Prompt) -> str:
    """Return what the user said last; prompts here are texts or messages."""
    if isinstance(prompt, str):
        return prompt
    return text_of(cast(Messages, prompt)[-1]["content"])


def text_of(content: Any) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def next_turn(prompt: Prompt, reply: str, question: str) -> Sequence[dict[str, Any]] | None:
    """Return the conversation with a further turn; None for a raw text, which has no turns."""
    if isinstance(prompt, str):
        return None
    turns = [{"role": "assistant", "content": reply}, {"role": "user", "content": question}]
    return [*map(dict, cast(Messages, prompt)), *turns]
