"""What transformers makes of the most used chat templates: `renderings.json` keeps it.

Run as a program in an environment with transformers, it writes that file.
"""

import json
import sys
from datetime import datetime
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "chat_templates"
RENDERINGS = FOLDER / "renderings.json"
TODAY = datetime(2025, 7, 3, 12, 0)
VARIABLES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}  # those of SmolLM2

SYSTEM = {"role": "system", "content": "Be kind."}
HI = {"role": "user", "content": " Hi, <|im_end|>\n"}
HELLO = {"role": "assistant", "content": "Hello."}
BYE = {"role": "user", "content": "Bye"}
THOUGHT = {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello."}
REASONED = {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting."}
CALL = {
    "role": "assistant",
    "tool_calls": [
        {
            "type": "function",
            "id": "call00001",
            "function": {"name": "weather", "arguments": {"city": "Rome", "days": 2}},
        }
    ],
}
ANSWER = {"role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "call00001"}

CONVERSATIONS = {
    "a question": [HI],
    "a system message": [SYSTEM, HI],
    "turns": [SYSTEM, HI, HELLO, BYE],
    "a thought": [HI, THOUGHT, BYE],
    "reasoning": [HI, REASONED, BYE],
    "developer": [{**SYSTEM, "role": "developer"}, HI],
    "a tool": [HI, CALL, ANSWER, HELLO, BYE],
    "continued": [SYSTEM, BYE, {"role": "assistant", "content": "Good"}],
    "continued after a space": [BYE, {"role": "assistant", "content": "Good "}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": t} for t in ("Hi", "you")]}],
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place: <b>now</b> & 'later'.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": 'Where; "Zürich", say.'},
                    "unit": {"type": "string", "enum": ["C", "F"], "description": "Or K"},
                    "days": {"type": ["integer", "string"], "description": "How many"},
                    "hours": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "description": "Which",
                    },
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "noop",
            "description": "Does nothing.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]
WITH_TOOLS = {
    "tools": [HI],
    "tools and a system message": [SYSTEM, HI],
    "tools and a call": [HI, {**CALL, "content": ""}, ANSWER, HELLO, BYE],
    "tools and an answer": [SYSTEM, HI, {**CALL, "content": ""}, ANSWER],
}


def templates():
    """Name → source."""
    return {p.stem: p.read_text("utf-8") for p in sorted(FOLDER.glob("*.jinja"))}


def meant(source, messages):
    """What a template can be told: roles and parts that it has no word for are put otherwise."""
    messages = [dict(message) for message in messages]
    for message in messages:
        if message["role"] == "developer" and "developer" not in source:
            message["role"] = "system"
        if isinstance(message.get("content"), list) and "item['text']" not in source:
            message["content"] = "\n".join(part["text"] for part in message["content"])
    return messages


def folded(messages):
    """A system message at the head of the first user message."""
    if messages[0]["role"] != "system":
        return messages
    system, user, *rest = messages
    return [{**user, "content": system["content"] + "\n\n" + user["content"]}, *rest]


def by_transformers(source, messages, tools=None):
    """transformers' text, or what it says when it fails."""
    from transformers.utils import chat_template_utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return TODAY

    chat_template_utils.datetime = Frozen
    continued = messages[-1]["role"] == "assistant"

    def render(told):
        return chat_template_utils.render_jinja_template(
            [told],
            tools=tools,
            chat_template=source,
            add_generation_prompt=not continued,
            continue_final_message=continued,
            **VARIABLES,
        )[0][0]

    messages = meant(source, messages)
    said = ""
    for told in (messages, folded(messages)):
        try:
            text = render(told)
            if messages[0]["role"] != "system" or SYSTEM["content"] in text:
                return text
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0]
    return said


def main():
    """Write RENDERINGS."""
    found = {
        name: {
            what: by_transformers(source, chat, TOOLS if what in WITH_TOOLS else None)
            for what, chat in (CONVERSATIONS | (WITH_TOOLS if "tools" in source else {})).items()
        }
        for name, source in templates().items()
    }
    RENDERINGS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
