"""Texts and token ids that clients send, checked before the engine is asked to turn them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .api_error import ApiError
from .engine import Engine
from .failure import UnservedError
from .fields import Fields
from .served import NamedModel

# Bytes of text, or ids, that are turned into the other by themselves: it takes a second per
# megabyte, and as long again until it is JSON.
MOST = 128 << 10


async def joined_tokens(
    engine: Engine,
    model: NamedModel,
    parts: list[Any],
    param: str,
    *,
    add_special: bool = False,
    parse_special: bool = False,
    with_pieces: bool = False,
    is_prompt: bool = False,
) -> list[Any]:
    """Return the tokens of a list of texts and ids; a BOS only goes before a text.

    Args:
        param: the field that they are of.
        with_pieces: return [id, piece as latin-1] of each, not only the id.
        is_prompt: there may be as many as the context holds.

    Raises:
        ApiError: a part is neither text nor id, or there is too much. UnservedError: as `ready`.
    """
    facts = await engine.ready(model.recipe)
    check_parts(parts, param, facts, is_prompt=is_prompt)
    special = {"add_special": add_special, "parse_special": parse_special}
    return list(
        await engine.ask(
            model.recipe,
            "tokenize",
            parts=parts,
            **special,
            with_pieces=with_pieces,
            is_prompt=is_prompt,
        )
    )


def check_parts(
    parts: Sequence[Any],
    param: str,
    facts: Mapping[str, Any],
    *,
    texts: bool = True,
    is_prompt: bool = False,
) -> None:
    """Raise ApiError if a part is neither a token's id nor, if there may be any, a text.

    Likewise if there are more than are turned at once, unless they are a prompt.
    """
    n = 0 if is_prompt else sum(len(p.encode()) if isinstance(p, str) else 1 for p in parts)
    if n > MOST:
        told = f"{param} has {n:,} bytes or ids; {MOST:,} can be turned at once, send it in parts"
        raise ApiError(400, told, param=param)
    last = facts["n_vocab"] - 1
    for i, part in enumerate(parts):
        is_text = texts and isinstance(part, str)
        if not (is_text or (type(part) is int and 0 <= part <= last)):
            wanted = "a text or a token id" if texts else "a token id"
            told = f"{param}[{i}] is {part!r:.40}; it must be {wanted} in [0, {last}]"
            raise ApiError(400, told, param=param)


def prefix_ids(fields: Fields, facts: Mapping[str, Any]) -> list[int]:
    """Return the tokens that the reply is to go on after; ApiError if they are none, or too many.

    Args:
        facts: of the model.
    """
    ids: list[int] = fields.get("prefix_ids", list, "a list of token ids", [])
    if len(ids) >= facts["n_ctx"]:  # before they are looked at
        told = f"prefix_ids has {len(ids)} tokens; fewer than n_ctx, {facts['n_ctx']}, fit"
        raise ApiError(400, told, param="prefix_ids")
    check_parts(ids, "prefix_ids", facts, texts=False)
    return ids


def check_count(n: int, most: int) -> None:
    """Raise ApiError if a call has more prompts than may be in work or wait."""
    if n > most:
        told = f"the call has {n} prompts; {most} of so many choices are taken, send fewer"
        raise ApiError(400, told, param="prompt")


def check_fits(n_ids: int, facts: Mapping[str, Any]) -> None:
    """Raise UnservedError, as the engine would, if a prompt has more ids than the context holds.

    Here it is found out before they are checked, copied and sent.
    """
    n_ctx = facts["n_ctx"]
    if n_ids >= n_ctx:
        raise UnservedError(
            "ContextLengthError",
            f"the prompt is at least {n_ids} tokens, and {n_ctx - 1} fit (n_ctx {n_ctx} less one "
            "for the reply); shorten it, or raise n_ctx (--n-ctx)",
            {"n_prompt_tokens": n_ids, "n_ctx": n_ctx},
        )
