"""Replies that are written down, and what the server's dialects make of them."""

import asyncio
import re

from edge_eft.engine.reply import Step, Timings
from edge_eft.engine.request import Request
from edge_eft.server.generation import Ask, Generating
from edge_eft.server.served import NamedModel, ServedRecipe
from edge_eft.text.reply_form import ReplyForm
from edge_eft.text.reply_parser import ReplyParser

ATLAS = NamedModel("atlas", "atlas", None)
HERMES = ReplyForm(("<think>", "</think>"), False, "hermes", ())
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Lima"}}\n</tool_call>'


class Engine:
    """Knows one recipe, of which it has facts."""

    n_slots, queue = 4, 64

    names = ("atlas",)

    def __init__(self, template="", replies=(), form=HERMES):
        self._replies = list(replies)
        form = form.to_dict()
        self._facts = {
            "n_ctx": 1000,
            "n_vocab": 300,
            "templates": {"base": None, "tuned": template},
            "reads": re.findall(r"\w+", template),
            "reply_forms": {"base": form, "tuned": form},
        }

    def facts(self, name):
        return self._facts

    def served(self, name):
        return ServedRecipe(name, "", "")

    async def ready(self, name):
        return self._facts

    async def ask(self, name, what, parts, add_special, **_):
        """Tokenize: a token is a character, 1 is the BOS."""
        ids = [1] if add_special and isinstance(parts[0], str) else []
        for part in parts:
            ids += [part] if isinstance(part, int) else map(ord, part)
        return ids

    async def submit(self, name, requests, progress):
        return [self._replies.pop(0) for _ in requests]


class Reply:
    """A reply that comes in these blocks of steps, the first of them after so many seconds.

    A `PromptProgress` may stand among them.
    """

    def __init__(self, blocks, after=0.0, prefix=()):
        self._blocks, self._after, self.prefix = blocks, after, list(prefix)

    async def accepted(self):
        return ""

    async def steps(self):
        await asyncio.sleep(self._after)
        for block in self._blocks:
            yield block

    def cancel(self):
        pass


def steps(texts, pieces=None, finish_reason="stop", ends=True, cached_tokens=5, stop_string=None):
    """Steps of tokens that print `texts`; the last is an end token unless not `ends`.

    Args:
        pieces: of the tokens, where they are not the texts.
    """
    pieces = [*(pieces or texts), *(["<|im_end|>"] if ends else [])]
    texts = [*texts, *([""] if ends else [])]
    last = len(texts) - 1
    return [
        Step(
            request_id=0,
            index=i,
            token=i,
            text=text,
            logprob=-0.5,
            timings=Timings(),
            finish_reason=finish_reason if i == last else None,
            is_end_token=ends and i == last,
            prompt_tokens=12,
            cached_tokens=cached_tokens,
            stop_string=stop_string if i == last else None,
            piece=piece.encode(),
        )
        for i, (text, piece) in enumerate(zip(texts, pieces, strict=True))
    ]


def generating(steps, stop=(), block=1, progress=()):
    """What a dialect's writer is given; `block` steps come at a time, `progress` before them."""
    blocks = [*progress, *(steps[i : i + block] for i in range(0, len(steps), block))]
    ask = Ask(ATLAS, (Request([{"role": "user", "content": "Hi"}], stop=stop),), True, True)
    parser = ReplyParser(HERMES, tools=True, reasoning=True, in_reasoning=False)
    return Generating(ask, [Reply(blocks)], [parser], HERMES, [[]])


def events(writer, given):
    """All events that a writer makes."""

    async def collected():
        return [event async for event in writer.events(given)]

    return asyncio.run(collected())


def whole(writer, given):
    """The answer that a writer makes."""
    return asyncio.run(writer.whole(given))


def asked(dialect, body, template=""):
    """What a dialect asks for."""
    return asyncio.run(dialect.ask(body, Engine(template), ATLAS))


def prompt(dialect, body):
    """The messages that a dialect gives to the engine."""
    return asked(dialect, body).requests[0].prompt
