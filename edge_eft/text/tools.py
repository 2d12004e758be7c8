"""Definitions of tools as programs hand them over: checked, copied, and their texts changed.

A definition is OpenAI's: {"type": "function", "function": {"name", "description", "parameters"}},
with `parameters` a JSON schema. Everything in it but the words of the form and of JSON schema was
written by strangers, names and the properties' keys included.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import PromptError
from .messages import change_texts, plain_copy

Tool = dict[str, Any]

_FORM = '{"type": "function", "function": {"name": …, "parameters": …}}'
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_KINDS: tuple[tuple[str, type, str], ...] = (
    ("description", str, "a string"),
    ("parameters", Mapping, "a JSON schema, which is an object"),
)

# What templates look into, where JSON schema says that it means something.
_OF_FUNCTIONS = frozenset({"name", "description", "parameters", "strict", "return"})
_SCHEMA = frozenset({"additionalProperties", "items", "not"})
_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED_SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_KEYWORDS = (
    _SCHEMA
    | _SCHEMAS
    | _NAMED_SCHEMAS
    | {"type", "description", "title", "required", "enum", "const", "default", "nullable"}
    | {"format", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern"}
    | {"$ref", "examples"}
)
_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def check_tools(tools: Any) -> list[Tool]:
    """Return plain copies of definitions of tools; what is None in a function is left out.

    Raises:
        PromptError: they are not such a list; says which one and what was seen.
    """
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Sequence):
        raise PromptError(f"tools is {tools!r:.60}; use a list of {_FORM}")
    return [_check_tool(f"tool {i}", tool) for i, tool in enumerate(tools)]


def _check_tool(where: str, tool: Any) -> Tool:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or tool.get("type") != "function":
        raise PromptError(f"{where} is {tool!r:.60}; use {_FORM}")
    given = {key: value for key, value in function.items() if value is not None}
    name = given.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PromptError(
            f"{where} has the name {name!r:.60}; use up to 128 letters, digits and _ . : / -"
        )
    for key, kind, wanted in _KINDS:
        if key in given and not isinstance(given[key], kind):
            raise PromptError(f"{where} ({name}) has the {key} {given[key]!r:.60}; use {wanted}")
    copy: Tool = plain_copy({**tool, "function": given}, f"{where} ({name})")
    return copy


def changed_tools(tools: Sequence[Tool], change: Callable[[str], str]) -> list[Tool]:
    """Return copies of checked definitions with every text in them changed.

    What is not changed: keys of the form and of JSON schema in their places, and JSON's types.
    """
    return [
        {
            key if key in ("type", "function") else change(key): _part(key, value, change)
            for key, value in tool.items()
        }
        for tool in tools
    ]


def _part(key: str, value: Any, change: Callable[[str], str]) -> Any:
    """What stands under a key of a definition, changed."""
    if key == "type":
        return value
    if key != "function":
        return change_texts(value, change)
    return {
        key if key in _OF_FUNCTIONS else change(key): _schema(part, change)
        if key in ("parameters", "return")
        else change_texts(part, change)
        for key, part in value.items()
    }


def _schema(schema: Any, change: Callable[[str], str]) -> Any:
    """A JSON schema with every text changed but the words of JSON schema."""
    if not isinstance(schema, dict):
        return change_texts(schema, change)
    return {
        key if key in _KEYWORDS else change(key): _keyword(key, value, change)
        for key, value in schema.items()
    }


def _keyword(key: str, value: Any, change: Callable[[str], str]) -> Any:
    """What a keyword of JSON schema says, changed."""
    if key == "type":
        return _types(value, change)
    if key in _SCHEMA:
        return _schema(value, change)
    if key in _SCHEMAS and isinstance(value, list):
        return [_schema(part, change) for part in value]
    if key in _NAMED_SCHEMAS and isinstance(value, dict):
        return {change(name): _schema(part, change) for name, part in value.items()}
    return change_texts(value, change)


def _types(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_types(part, change) for part in value]
    return value if isinstance(value, str) and value in _TYPES else change_texts(value, change)
