"""The blocks of the documents: what kind each is, the commands in it, and running them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import edge_eft

ROOT = Path(__file__).resolve().parents[2]

PROGRAMS = re.compile(r'(\w+="[^"]*" )?(make|pip|uv|edge-eft|python|trl|cat) |tools/')


class Block(NamedTuple):
    """A fenced or indented block; `line` is the number of its first."""

    file: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def blocks(file: Path) -> Iterator[Block]:
    name, lines = str(file.relative_to(ROOT)), file.read_text("utf-8").splitlines()
    at = 0
    while (begin := at) < len(lines):
        if fence := re.match(r" *```(\w*)", lines[at]):
            at = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
            yield Block(name, begin + 2, fence[1], "\n".join(lines[begin + 1 : at]))
        elif lines[at].startswith("    "):
            while at + 1 < len(lines) and (lines[at + 1].startswith("    ") or not lines[at + 1]):
                at += 1
            text = "\n".join(line.removeprefix("    ") for line in lines[begin : at + 1])
            yield Block(name, begin + 1, "", text.rstrip())
        at += 1


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Every line of a block as (where, command): continued lines joined, comments cut."""
    number = block.line
    for text in re.split(r"(?<!\\)\n", block.text):
        command = re.sub(r"(^|\s+)# .*", "", re.sub(r"\\\n\s*", "", text)).strip()
        if command:
            yield f"{block.file}:{number}", command
        number += text.count("\n") + 1


def has_equal_columns(text: str) -> bool:
    """Whether there are three columns or more, two spaces apart, as many in every row."""
    counts = [len(re.split(r" {2,}", line.strip())) for line in text.split("\n")]
    return len(counts) > 1 and set(counts) == {counts[0]} and counts[0] > 2


# What a block without a language and without a command may be, and how it is told.
KINDS = {
    "ruled table": lambda text: re.search(r"^─+$", text, re.MULTILINE),
    "diagram": lambda text: re.search("[┌└│►]", text),
    "table": has_equal_columns,
    "formula": lambda text: re.fullmatch(r".* [~=≈·] .*", text),
}


def kind(block: Block) -> str | None:
    """None if it is not known, or has commands and something else."""
    if block.language in ("python", "toml", "json"):
        return block.language
    typed = [bool(PROGRAMS.match(command)) for _, command in commands(block)]
    if block.language or any(typed):
        return "commands" if block.language in ("", "sh", "shell") and all(typed) else None
    return next((name for name, holds in KINDS.items() if holds(block.text)), None)


def write_programs(folder: Path) -> None:
    """Put `edge-eft` and `python` into the folder's bin/, as the documents call them."""
    (folder / "bin").mkdir()
    for name, more in (("edge-eft", "-m edge_eft"), ("python", "")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {more} "$@"\n')
        program.chmod(0o755)


def run_as_typed(
    command: str, folder: Path, added: Mapping[str, str], said: str, **more: str
) -> str:
    """What a command, typed in `folder` with its programs, says on stdout; its exit status is 0.

    `added` has options for commands with a word, `said` is told to a chat, `more` is environment.
    """
    options = [each for word, each in added.items() if word in command.split()]
    environment = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(edge_eft.__file__).resolve().parents[1]),
        "EDGE_EFT_HOME": str(folder / "home"),
    }
    done = subprocess.run(
        " ".join([command, *options]),
        shell=True,
        input=f"{said}\n/bye\n" if " chat " in command else "",
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=os.environ | environment | more,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
