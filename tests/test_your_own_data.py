"""docs/your-own-data.md: its blocks are what they say, and its path is gone from end to end.

The models that the page names are tiny ones here, under the names of the page; the examples, both
programs and every command are the page's own.
"""

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from helpers.documents import ROOT, blocks, commands, kind, run_as_typed, write_programs
from helpers.hugging_face import write_instruct_models

from edge_eft.cli.main import cli
from edge_eft.convert.scripts import find_scripts, hf_to_gguf

PAGE = ROOT / "docs" / "your-own-data.md"
BLOCKS = list(blocks(PAGE))
COMMANDS = [
    command for block in BLOCKS if kind(block) == "commands" for _, command in commands(block)
]
NOT_RUN = {
    "pip install '.[convert]'": "downloads torch, gigabytes",
    "edge-eft pull qwen3-8b --for-lora": "downloads the models, gigabytes",
    "trl sft": "needs TRL; its options are those of trl 1.16",
}
# A tiny random model learns six lines in more rounds than a trained one.
ADDED = {"train_lora.py": "--epochs 60 --rate 5e-3", "chat": "--seed 1", "convert": "--quiet"}

SMALL, LARGE = "Qwen3-0.6B-Q8_0.gguf", "Qwen3-8B-Q4_K_M.gguf"
RECIPE = f"""
[instruct]
file = "{LARGE}"

[delta.chat]
tuned = {{ file = "{SMALL}", template_kwargs = {{ enable_thinking = false }} }}
reference = {{ file = "{SMALL}" }}
"""


def is_run(command: str) -> bool:
    return not command.startswith(tuple(NOT_RUN))


def named(language: str) -> dict[str, str]:
    """The blocks that begin with "# NAME"."""
    return {block.text.split()[1]: block.text for block in BLOCKS if kind(block) == language}


def examples() -> dict[str, str]:
    rows = [block.text + "\n" for block in BLOCKS if kind(block) == "json"]
    return dict(zip(("train.jsonl", "heldout.jsonl"), rows, strict=True))


def test_every_block_is_of_a_known_kind():
    assert [block.text for block in BLOCKS if kind(block) is None] == []


def test_examples_and_programs_are_what_they_say():
    for text in examples().values():
        for line in text.splitlines():
            *before, reply = json.loads(line)["messages"]
            assert before
            assert reply["role"] == "assistant"
    assert set(named("python")) == {"train_lora.py", "score.py"}
    for text in (*named("python").values(), *named("toml").values()):
        assert ast.parse(text) if "import" in text else tomllib.loads(text)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("edge-eft ")])
def test_every_command_has_the_options_that_it_is_given(command):
    _, name, *words = shlex.split(command)
    known = {option for p in cli.get_command(None, name).params for option in p.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_what_is_not_run_is_in_the_page():
    for command in NOT_RUN:
        assert any(text.startswith(command) for text in COMMANDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The page's files, models of its names, and its recipe."""
    for module in ("torch", "transformers", "sentencepiece", "peft"):
        pytest.importorskip(module)
    scripts = find_scripts(None)
    root, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("page")
    write_instruct_models(root)
    for name, target in (("small", SMALL), ("large", LARGE)):
        hf_to_gguf(scripts, root / name, folder / target, dtype="f32", name=name)
    (folder / "Qwen").mkdir()
    (root / "small").rename(folder / "Qwen" / "Qwen3-0.6B")
    for name, text in (examples() | named("python") | named("toml")).items():
        (folder / name).write_text(text, "utf-8")
    recipes = folder / "home" / "recipes"
    recipes.mkdir(parents=True)
    text = RECIPE
    for name in (SMALL, LARGE):
        text = text.replace(name, str(folder / name))
    (recipes / "qwen3-8b.toml").write_text(text)
    (folder / "cache").mkdir()
    (folder / "cache" / scripts.name).symlink_to(scripts)
    write_programs(folder)
    return folder


def run(command: str, folder: Path) -> str:
    """What it says on stdout; its exit status is 0."""
    cache = {"EDGE_EFT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    return run_as_typed(command, folder, ADDED, "My parcel is lost.", **cache)


@pytest.mark.convert
def test_the_path_leads_from_examples_to_a_large_model_that_follows(folder):
    said = {command: run(command, folder) for command in COMMANDS if is_run(command)}
    assert all(text.strip() for text in said.values())
    losses = re.findall(r"loss ([\d.]+)", next(iter(said.values())))
    assert float(losses[-1]) < 0.1 * float(losses[0])
    # What was taught is said by the large model, which by itself says none of it.
    large, small, emulated = (
        tuple(map(float, re.findall(r"([\d.]+)%", line)))
        for line in run("python score.py qwen3-8b my-adapter train.jsonl", folder).splitlines()
    )
    assert large == (0, 0)
    assert small == (100, 100)
    assert emulated[1] >= 80
    recipe = named("toml")["support.toml"]
    assert "memory" in run("edge-eft show support.toml", folder), recipe
