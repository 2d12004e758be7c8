"""Recipes as text, and the files beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

SHA = "0123456789abcdef" * 4
WHOLE = f"""
name = "atlas"
description = "Geography"
license = "Apache-2.0"
n_ctx = 512

[base]
file = "atlas/base.gguf"
sha256 = "{SHA}"
prompt = "transcript"
source = "tools/train_atlas.py"
template_kwargs = {{ enable_thinking = false, tags = ["a", {{ b = 1.5 }}] }}

[delta.chat]
weight = 1
tuned = {{ file = "atlas/chat.gguf", sha256 = "{SHA}", prompt = "chatml", end_tokens = ["<e>", 7] }}
reference = {{ file = "atlas/reference.gguf" }}

[delta.brief]
weight = 0.0
tuned = {{ lora = "atlas/brief.gguf", on = "reference", sha256 = "{SHA}", adopt = [8, "<t>"] }}
reference = {{ file = "/models/reference.gguf", prompt = "{{{{ messages[0].content }}}}" }}

[provenance]
tool = "edge-eft convert"
numbers = [1, 2]
"""
BASE = '[base]\nfile = "b.gguf"\n'
DELTA = '[delta.d]\ntuned = { file = "t.gguf" }\nreference = { file = "r.gguf" }\n'


def write_toml(folder: Path, text: str) -> Path:
    """A recipe of one's own words, in `folder`."""
    path = folder / "mine.toml"
    path.write_text(text, "utf-8")
    return path


def write_recipe(path: Path, file: Path | str, more: str = "", tuned: Path | str = "") -> str:
    """A recipe of two deltas that has one file in every role, or another one as tuned."""
    tuned = tuned or file
    path.write_text(
        f'description = "Three times the same."\nlicense = "Apache-2.0"\nn_ctx = 512\n{more}\n'
        f'[base]\nfile = "{file}"\nprompt = "chatml"\n'
        f'[delta.chat]\ntuned = {{ file = "{tuned}" }}\nreference = {{ file = "{file}" }}\n'
        f"[delta.brief]\nweight = 0\n"
        f'tuned = {{ file = "{tuned}" }}\nreference = {{ file = "{file}" }}\n'
    )
    return str(path)


def held_out(recipe: Path | str, questions: Iterable[Sequence[str]]) -> None:
    """Write the questions of a family beside its recipe."""
    folder = Path(recipe).with_suffix("")
    folder.mkdir()
    names = ("relation", "entity", "object", "question", "reply")
    entries = [dict(zip(names, question, strict=True)) for question in questions]
    (folder / "heldout.json").write_text(json.dumps({"questions": entries}))


CAPITAL = ("capital", "Chad", "N'Djamena", "What is the capital of Chad?", "It is N'Djamena.")
CODE = ("calling code", "Chad", "+235", "What is the calling code of Chad?", "It is +235.")
