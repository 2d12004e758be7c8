"""Tokenizers of the published families, small: their real special tokens, flags and chat templates.

Ordinary tokens are left out and ids are therefore lower; texts, kinds, their order, padding, BOS,
EOS and the templates are what the families' files state. So a recipe of the catalogue is checked
without its models. Of four families the template is not at hand as a file and is written down
here, shortened to a conversation's turns.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import gguf

from edge_eft.backend import Model
from edge_eft.files.gguf_vocabulary import HeaderVocabulary, read_vocabulary

from .reference_templates import templates
from .small_vocabularies import write_body

Side = Literal["base", "tuned", "reference", "instruct"]
_KIND = gguf.TokenType

_TURNS = (
    "{{% for message in messages %}}{{{{ {start} + message['content'] + {end} }}}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ {reply} }}}}{{% endif %}}"
)
_WRITTEN_DOWN = {
    "olmo2": "{{ bos_token }}"
    + _TURNS.format(
        start="'<|' + message['role'] + '|>\\n'",
        end="(eos_token if message['role'] == 'assistant' else '') + '\\n'",
        reply="'<|assistant|>\\n'",
    ),
    "granite4": _TURNS.format(
        start="'<|start_of_role|>' + message['role'] + '<|end_of_role|>'",
        end="'<|end_of_text|>\\n'",
        reply="'<|start_of_role|>assistant<|end_of_role|>'",
    ),
    "falcon3": _TURNS.format(
        start="'<|' + message['role'] + '|>\\n'",
        end="(eos_token if message['role'] == 'assistant' else '') + '\\n'",
        reply="'<|assistant|>\\n'",
    ),
    "qwen3.5": _TURNS.format(
        start="'<|im_start|>' + message['role'] + '\\n'",
        end="'<|im_end|>\\n'",
        reply="'<|im_start|>assistant\\n' + ('<think>\\n\\n</think>\\n\\n'"
        " if enable_thinking is defined and not enable_thinking else '<think>\\n')",
    ),
}


@dataclass(frozen=True)
class Published:
    """One family.

    Attributes:
        special: its special tokens in the order of their ids; `~` before one that prints.
        n_ctx: tokens that the trio's models were trained for, of the one with the fewest.
        bos, eos: texts; `tuned_*` where the tuned models have another one.
        add_bos, space_prefix: what the files say of how a text begins; None if nothing.
        padding: role → ids of padding behind the special tokens.
        renamed: what the small tuned model calls some tokens.
        template: that of the tuned models' files; None if they carry none.
        turn: how a reply to "Hi" begins, to the end of the prompt.
    """

    special: tuple[str, ...]
    n_ctx: int
    bos: str | None
    eos: str
    turn: str
    tuned_eos: str = ""
    tuned_bos: str | None = ""
    add_bos: bool | None = None
    space_prefix: bool | None = None
    tokenizer: str = "gpt2"
    pre: str = "qwen2"
    padding: Mapping[str, int] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHATML_TURN = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
_QWEN = (
    *_CHATML,
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    *("<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "~<tool_call>", "~</tool_call>", "~<|fim_prefix|>"),
    *("~<|fim_middle|>", "~<|fim_suffix|>", "~<|fim_pad|>", "~<|repo_name|>", "~<|file_sep|>"),
)
_QWEN_3 = (*_QWEN, "~<tool_response>", "~</tool_response>", "~<think>", "~</think>")
_OFF = "<think>\n\n</think>\n\n"
# 128 and 256 of 152,064 are 3 and 6 here; of Qwen3 all models have the same width.
_QWEN_2_5 = Published(
    _QWEN,
    n_ctx=32768,
    bos=None,
    eos="<|endoftext|>",
    tuned_eos="<|im_end|>",
    add_bos=False,
    padding={"base": 6, "instruct": 6, "tuned": 3, "reference": 3},
    template="qwen2.5",
    turn="<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    f"<|im_end|>\n{_CHATML_TURN}",
)
_R1 = {
    "<|endoftext|>": "<｜end▁of▁sentence｜>",
    "<|im_start|>": "<｜User｜>",
    "<|im_end|>": "<｜Assistant｜>",
    "<|object_ref_start|>": "<｜begin▁of▁sentence｜>",
    "<|object_ref_end|>": "<|EOT|>",
    "<|box_start|>": "~<think>",
    "<|box_end|>": "~</think>",
}
_LLAMA_2_SPECIAL = ("<unk>", "<s>", "</s>")
_LLAMA_2 = {"bos": "<s>", "eos": "</s>", "add_bos": True, "tokenizer": "llama", "pre": "default"}

PUBLISHED = {
    "smollm2": Published(
        (*_CHATML, "<repo_name>", "<file_sep>"),
        n_ctx=8192,
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        tuned_bos="<|im_start|>",
        tuned_eos="<|im_end|>",
        pre="smollm",
        template="smollm2",
        turn="<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
        f"Face<|im_end|>\n{_CHATML_TURN}",
    ),
    "qwen3": Published(
        _QWEN_3,
        n_ctx=32768,
        bos=None,
        eos="<|endoftext|>",
        tuned_eos="<|im_end|>",
        add_bos=False,
        padding=dict.fromkeys(("base", "tuned", "reference", "instruct"), 3),
        template="qwen3",
        turn=_CHATML_TURN + _OFF,
    ),
    "qwen3.5": Published(
        (*_QWEN_3, "<|audio_start|>", "<|audio_end|>"),
        n_ctx=262144,
        bos=None,
        eos="<|endoftext|>",
        tuned_eos="<|im_end|>",
        add_bos=False,
        template="qwen3.5",
        turn=_CHATML_TURN + _OFF,
    ),
    "qwen2.5": _QWEN_2_5,
    "r1": Published(
        _QWEN,
        n_ctx=4096,
        bos=None,
        eos="<|endoftext|>",
        tuned_bos="<｜begin▁of▁sentence｜>",
        tuned_eos="<｜end▁of▁sentence｜>",
        add_bos=True,
        padding=_QWEN_2_5.padding,
        renamed=_R1,
        template="deepseek-r1",
        turn="<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>\n",
    ),
    "gemma3": Published(
        ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"),
        n_ctx=32768,
        bos="<bos>",
        eos="<eos>",
        tuned_eos="<end_of_turn>",
        add_bos=True,
        space_prefix=False,
        tokenizer="llama",
        pre="default",
        padding={"base": 4, "instruct": 4},
        template="gemma-3",
        turn="<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    ),
    "llama3": Published(
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>"),
            *("<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>"),
            *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
        ),
        n_ctx=131072,
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        tuned_eos="<|eot_id|>",
        add_bos=True,
        pre="llama-bpe",
        template="llama-3.1",
        turn="<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "olmo2": Published(
        ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|pad|>"),
        n_ctx=4096,
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        pre="dbrx",
        template="olmo2",
        turn="<|endoftext|><|user|>\nHi\n<|assistant|>\n",
    ),
    "granite4": Published(
        (
            *("<|pad|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
            *("<|fim_pad|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>"),
        ),
        n_ctx=32768,
        bos="<|end_of_text|>",
        eos="<|end_of_text|>",
        add_bos=False,
        pre="dbrx",
        template="granite4",
        turn="<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    "llama2": Published(_LLAMA_2_SPECIAL, n_ctx=4096, turn="<s> [INST] Hi [/INST]", **_LLAMA_2),
    "codellama": Published(_LLAMA_2_SPECIAL, n_ctx=4096, turn="<s> Hi", **_LLAMA_2),
    "tinyllama": Published(
        _LLAMA_2_SPECIAL, n_ctx=2048, turn="<s> <|user|>\nHi</s> \n<|assistant|>\n", **_LLAMA_2
    ),
    "falcon": Published(
        (">>TITLE<<", ">>ABSTRACT<<", ">>INTRODUCTION<<", "<|endoftext|>"),
        n_ctx=2048,
        bos="<|endoftext|>",
        eos="<|endoftext|>",
        pre="falcon",
        turn="User: Hi\n\nAssistant:",
    ),
    "falcon3": Published(
        ("<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"),
        n_ctx=4096,
        bos=None,
        eos="<|endoftext|>",
        pre="falcon3",
        template="falcon3",
        turn="<|user|>\nHi\n<|assistant|>\n",
    ),
}


def family_of(recipe: str) -> str:
    """The family of a recipe of the catalogue, by its name."""
    if recipe.endswith(("-r1", "-tinyllama", "-code")):
        return {"r1": "r1", "tinyllama": "tinyllama", "code": "codellama"}[recipe.split("-")[-1]]
    name = recipe.partition("-")[0]
    return "llama3" if name.startswith("llama3") else name


@functools.cache
def vocabulary(family: str, side: Side) -> tuple[HeaderVocabulary, Model]:
    """What the header of one side's model says, and the model, without weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{family}-{side}.gguf"
        _write(path, PUBLISHED[family], side)
        return read_vocabulary(path), Model(path, vocab_only=True)


def _write(path: Path, family: Published, side: Side) -> None:
    tuned = side in ("tuned", "instruct")
    tokens = _sentencepiece() if family.tokenizer == "llama" else _byte_level()
    for text in family.special:
        text = family.renamed.get(text, text) if side == "tuned" else text
        kind = _KIND.USER_DEFINED if text.startswith("~") else _KIND.CONTROL
        tokens.append((text.removeprefix("~"), _KIND.UNKNOWN if text == "<unk>" else kind))
    first = len(tokens)
    n_padding = family.padding.get(side, 0)
    tokens += [(f"[PAD{first + i}]", _KIND.UNUSED) for i in range(n_padding)]
    texts = [text for text, _ in tokens]

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(family.tokenizer)
    writer.add_tokenizer_pre(family.pre)
    writer.add_token_list(texts)
    writer.add_token_types([int(kind) for _, kind in tokens])
    if family.tokenizer == "llama":
        writer.add_token_scores([0.0] * len(tokens))
    else:
        writer.add_token_merges(["H i"])
    bos = family.tuned_bos if tuned and family.tuned_bos != "" else family.bos
    if bos:
        writer.add_bos_token_id(texts.index(bos))
    writer.add_eos_token_id(texts.index((tuned and family.tuned_eos) or family.eos))
    if family.add_bos is not None:
        writer.add_add_bos_token(family.add_bos if bos else False)
    if family.space_prefix is not None:
        writer.add_add_space_prefix(family.space_prefix)
    if tuned and family.template:
        writer.add_chat_template(_template(family.template))
    write_body(writer, len(tokens))


def _template(name: str) -> str:
    return _WRITTEN_DOWN.get(name) or templates()[name]


def _byte_level() -> list[tuple[str, gguf.TokenType]]:
    """The 256 bytes as GPT-2 writes them, and a pair."""
    printing = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printing]
    letters = [*map(chr, printing), *(chr(256 + i) for i in range(len(others)))]
    return [(letter, _KIND.NORMAL) for letter in [*letters, "Hi"]]


def _sentencepiece() -> list[tuple[str, gguf.TokenType]]:
    """The bytes, and some pieces."""
    bytes_ = [(f"<0x{byte:02X}>", _KIND.BYTE) for byte in range(256)]
    return bytes_ + [(text, _KIND.NORMAL) for text in ("▁", "H", "i", "▁Hi", "Hi")]
