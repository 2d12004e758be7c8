"""What a reply is held to that must call a tool: a JSON schema, and the texts around it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..engine.constraint import Constraint
from ..errors import RequestError
from ..text.reply_form import TOOL_CALL, ReplyForm


def tool_constraint(
    form: ReplyForm, tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any]
) -> Constraint:
    """Return what a reply is held to.

    Args:
        form: of the reply. One that knows no calls gets Hermes' (`ReplyForm.calling`), and where
            the prompt has opened the reasoning, it is closed at once.
        tools: as `text.tools.check_tools` returns them.
        choice: OpenAI's: "required" (any of them), or {"type": "function", "function": {"name"}}.

    Raises:
        RequestError: there are no tools, or none of that name, or the choice is something else;
            or as `Constraint`.
    """
    functions = [tool["function"] for tool in tools]
    if not functions:
        raise RequestError("tool_choice needs tools; give some, or leave tool_choice out")
    if choice != "required":
        named = choice.get("function") if isinstance(choice, Mapping) else None
        name = named.get("name") if isinstance(named, Mapping) else None
        if not isinstance(name, str):
            raise RequestError(
                f'tool_choice is {choice!r:.60}; to hold the reply to a tool, use "required" or '
                '{"type": "function", "function": {"name": …}}'
            )
        functions = [function for function in functions if function["name"] == name]
        if not functions:
            raise RequestError(f"tool_choice names {name!r:.60}, which is not one of the tools")
    is_llama = form.tool_calls == "llama3"
    key = "parameters" if is_llama else "arguments"
    before, after = ("", "") if is_llama else (f"{TOOL_CALL[0]}\n", f"\n{TOOL_CALL[1]}")
    if form.opens_reasoning and form.reasoning:
        before = f"{form.reasoning[1]}\n\n{before}"
    return Constraint(json_schema=_schema(functions, key), before=before, after=after)


def _schema(functions: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Any of these calls. References within parameters lead to copies of them at the top."""
    calls, definitions = [], {}
    for i, function in enumerate(functions):
        parameters = {"type": "object", **function.get("parameters", {})}
        place = f"{key}_{i}"
        moved = _moved(parameters, f"#/$defs/{place}")
        if moved != parameters:
            definitions[place] = moved
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function["name"]}, key: moved},
                "required": ["name", key],
                "additionalProperties": False,
            }
        )
    schema = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _moved(value: Any, place: str) -> Any:
    """A schema whose references to its own root lead to `place`."""
    if isinstance(value, list):
        return [_moved(part, place) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        key: place + part[1:]
        if key == "$ref" and isinstance(part, str) and part.startswith("#")
        else _moved(part, place)
        for key, part in value.items()
    }
