"""Messages as people and programs hand them over: checked, copied, and their texts changed.

A message is plain data of JSON's kinds. Everything in it but roles and the words of the format
(`type`, `function`) was written by people or models, keys of a tool call's arguments included.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import Any

from ..errors import PromptError

ROLES = ("system", "developer", "user", "assistant", "tool")
_TEXTS = ("name", "tool_call_id", "reasoning_content")
_MAX_DEPTH = 32
_PIECE = 1 << 17  # characters, of 10 ms

Message = dict[str, Any]


def check_messages(
    messages: Iterable[Mapping[str, Any]], *, keep_parts: bool = False
) -> list[Message]:
    """Return copies of messages: {"role", "content"} and what else a template may be told.

    Args:
        messages: with `content` as a string, a list of {"type": "text", "text": …}, or nothing if
            there are `tool_calls`; and, where given, `name`, `tool_calls`, `tool_call_id`,
            `reasoning_content`.
        keep_parts: leave lists of several parts as they are; else they are joined by line ends.

    Returns:
        Their content is a string, or a list if `keep_parts`; a tool call's arguments are an object
        where they are one, or the JSON text of one.

    Raises:
        PromptError: something is not a message; says which one and what was seen.
    """
    checked = [_check_message(i, message) for i, message in enumerate(messages)]
    if not checked:
        raise PromptError("there are no messages; give at least one user message")
    if not keep_parts:
        for message in checked:
            message["content"] = joined(message["content"])
    return checked


def joined(content: str | list[dict[str, str]]) -> str:
    """Return a content as one text."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def changed(message: Message, change: Callable[[str], str]) -> Message:
    """Return a copy of a checked message with every text in it changed."""
    copy: Message = {"role": message["role"]}
    for key, value in message.items():
        if key == "content":
            copy[key] = _with_texts(value, change)
        elif key == "tool_calls":
            copy[key] = [_changed_call(call, change) for call in value]
        elif key != "role":
            copy[key] = change(value)
    return copy


def translated(text: str, table: Mapping[int, str]) -> str:
    """Return `text.translate(table)`, made in pieces: other threads wait for one at most."""
    if len(text) <= _PIECE:
        return text.translate(table)
    pieces = (text[i : i + _PIECE] for i in range(0, len(text), _PIECE))
    return "".join(piece.translate(table) for piece in pieces)


def check_unicode(text: str, where: str) -> None:
    """Raise PromptError if there is half a character in a text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{where} has half a character (a surrogate) at {error.start}: {text[error.start]!r}"
        ) from None


def plain_copy(value: Any, where: str, depth: int = 0) -> Any:
    """Return a copy of a value of JSON's kinds.

    Raises:
        PromptError: it is not, or is nested too deep; names `where`.
    """
    if depth > _MAX_DEPTH:
        raise PromptError(f"{where} is nested more than {_MAX_DEPTH} deep; make it flatter")
    if isinstance(value, str):
        check_unicode(value, where)
        return value
    if value is None or isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [plain_copy(part, where, depth + 1) for part in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {
            plain_copy(key, where): plain_copy(part, where, depth + 1)
            for key, part in value.items()
        }
    raise PromptError(f"{where} has {value!r:.60}, which is not of JSON's kinds")


def change_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a plain value with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [change_texts(part, change) for part in value]
    if isinstance(value, dict):
        return {change(key): change_texts(part, change) for key, part in value.items()}
    return value


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a plain value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from texts(part)


def _check_message(index: int, message: Mapping[str, Any]) -> Message:
    where = f"message {index}"
    if not isinstance(message, Mapping):
        raise PromptError(f'{where} is {message!r:.60}; use {{"role": …, "content": …}}')
    given = {key: value for key, value in message.items() if value is not None and value != []}
    known = ("role", "content", "tool_calls", *_TEXTS)
    if unknown := [key for key in given if key not in known]:
        raise PromptError(f"{where} has {unknown[0]!r:.80}, which is not supported; leave it out")
    role = given.get("role")
    if role not in ROLES:
        raise PromptError(f"{where} has the role {role!r:.60}; use one of {', '.join(ROLES)}")
    checked: Message = {"role": role}
    calls = given.get("tool_calls")
    if calls is not None and role != "assistant":
        raise PromptError(f"{where} of role {role} has tool_calls; only an assistant calls tools")
    empty = "" if calls is not None or message.get("content") == [] else None
    checked["content"] = _check_content(given.get("content", empty), where)
    for key in _TEXTS:
        if key in given:
            if not isinstance(given[key], str):
                raise PromptError(f"{where} has the {key} {given[key]!r:.60}; use a string")
            check_unicode(given[key], where)
            checked[key] = given[key]
    if calls is not None:
        if not isinstance(calls, list | tuple):
            raise PromptError(f"{where} has the tool_calls {calls!r:.60}; use a list")
        checked["tool_calls"] = [_check_call(call, where) for call in calls]
    return checked


def _check_content(content: Any, where: str) -> str | list[dict[str, str]]:
    if isinstance(content, list | tuple):
        for part in content:
            text_part = isinstance(part, Mapping) and part.get("type") == "text"
            if not (text_part and isinstance(part.get("text"), str)):
                raise PromptError(f"{where} has the part {part!r:.60}; only text is supported")
            check_unicode(part["text"], where)
        if len(content) == 1:
            return str(content[0]["text"])
        return [{"type": "text", "text": part["text"]} for part in content]
    if not isinstance(content, str):
        raise PromptError(f"{where} has the content {content!r:.60}; use a string")
    check_unicode(content, where)
    return content


def _check_call(call: Any, where: str) -> dict[str, Any]:
    copy = plain_copy(call, f"a tool call of {where}")
    function = copy.get("function", copy) if isinstance(copy, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise PromptError(
            f'{where} has the tool call {call!r:.60}; use {{"type": "function", "function": '
            '{"name": …, "arguments": …}}'
        )
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):  # as OpenAI's API has them; templates go through an object
        try:
            parsed = json.loads(arguments)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, dict):
            function["arguments"] = plain_copy(parsed, f"a tool call of {where}")
    elif not isinstance(arguments, dict):
        raise PromptError(f"{where} calls a tool with {arguments!r:.60}; use an object")
    return dict(copy)


def with_text_arguments(message: Message) -> Message:
    """Return a message whose tool calls have their arguments as JSON text."""
    calls = []
    for call in message.get("tool_calls", ()):
        function = dict(call.get("function", call))
        if isinstance(function.get("arguments"), dict):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
        calls.append({**call, "function": function} if "function" in call else function)
    return {**message, "tool_calls": calls} if calls else message


def _with_texts(
    content: str | list[dict[str, str]], change: Callable[[str], str]
) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return change(content)
    return [{"type": "text", "text": change(part["text"])} for part in content]


def _changed_call(call: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    copy: dict[str, Any] = {}
    for key, value in call.items():
        if key == "function" and isinstance(value, dict):
            copy[key] = _changed_call(value, change)
        elif key == "type" and value == "function":
            copy[key] = value
        else:
            copy[key] = change_texts(value, change)
    return copy
