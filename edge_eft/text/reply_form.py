"""What form a model's replies take: marks around its reasoning, and how it calls tools.

Read from the text of its chat template, which quotes both back. Plain data: an engine's process can
tell it to one that has no model. Nothing is parsed here (`reply_parser.py`).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

ToolCalls = Literal["hermes", "llama3"]

# Qwen, DeepSeek, SmolLM and most others; Mistral; Cohere; ByteDance Seed.
_REASONING = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
)
TOOL_CALL = ("<tool_call>", "</tool_call>")
PYTHON_TAG = "<|python_tag|>"
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
# Between the same marks others have XML (Qwen3-Coder, GLM) or names of their own.
_HERMES = re.compile(r"""['"]\s*arguments\\?['"]""")
_XML = ("<function=", "<arg_key>")
_LLAMA_3 = re.compile(r'\{"name": function name, "parameters":|"parameters": [\'"]\s*\}\}')


@dataclass(frozen=True)
class ReplyForm:
    """The form of a model's replies.

    Attributes:
        reasoning: the marks before and after what it thinks; None if it does not think in marks.
        opens_reasoning: the prompt ends inside these marks, so that the reply begins with thoughts.
        tool_calls: "hermes": `<tool_call>`, a JSON object of name and arguments, `</tool_call>`,
            which Qwen has too; "llama3": an object of name and parameters as the whole reply, maybe
            after `<|python_tag|>`; None: in no form that is known here.
        controls: those of the marks that are control tokens, which print nothing in a reply's text;
            whoever reads the marks needs to be given these tokens' texts.
    """

    reasoning: tuple[str, str] | None = None
    opens_reasoning: bool = False
    tool_calls: ToolCalls | None = None
    controls: tuple[str, ...] = ()

    def after(self, prompt: str, continued: str = "") -> "ReplyForm":
        """Return the form of the reply to a prompt.

        Args:
            prompt: as the model is told it.
            continued: the assistant's message at its end that the reply continues. Marks elsewhere
                in a prompt may be anyone's.
        """
        if self.reasoning is None:
            return self
        begin, end = self.reasoning
        if continued:
            opens = continued.rfind(begin) > continued.rfind(end)
        else:
            opens = prompt.rstrip().endswith(begin)
        return replace(self, opens_reasoning=opens)

    def calling(self) -> "ReplyForm":
        """Return the form of a reply that is held to a call: Hermes' where none is known."""
        return self if self.tool_calls else replace(self, tool_calls="hermes")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReplyForm":
        """Return the form that `to_dict` described."""
        marks = values["reasoning"]
        return cls(
            (marks[0], marks[1]) if marks else None,
            values["opens_reasoning"],
            values["tool_calls"],
            tuple(values["controls"]),
        )


def reply_form(source: str, controls: Collection[str]) -> ReplyForm:
    """Return the form of the replies of a model with this chat template.

    Args:
        source: the template's Jinja text; "" for a format that is not a template.
        controls: the texts of the model's control tokens.
    """
    source = _COMMENT.sub("", source)
    reasoning = next((marks for marks in _REASONING if marks[1] in source), None)
    calls: ToolCalls | None = None
    is_json = _HERMES.search(source) and not any(mark in source for mark in _XML)
    if TOOL_CALL[0] in source and is_json:
        calls = "hermes"
    elif _LLAMA_3.search(source):
        calls = "llama3"
    marks = [*(reasoning or ())]
    marks += TOOL_CALL if calls == "hermes" else [PYTHON_TAG] if calls == "llama3" else []
    return ReplyForm(reasoning, False, calls, tuple(mark for mark in marks if mark in controls))
