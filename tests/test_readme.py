"""What the documents tell a reader to type is typed here, on the embedded family.

Every block of README.md, docs/ and models/atlas/README.md is a block of commands, a program in
Python, a recipe in TOML, or one of the KINDS that nobody types. Commands run as they are written,
through a shell, in a folder where the files that they name are those of atlas. What cannot be run
in a test is in NOT_RUN, with the reason.
"""

import json
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from conftest import ATLAS
from helpers.documents import ROOT, Block, blocks, commands, kind, run_as_typed, write_programs
from helpers.tiny_models import write_adapter

from edge_eft.cli.main import cli

# One whole path, which trains: test_your_own_data.py goes it.
APART = ROOT / "docs/your-own-data.md"
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(set(ROOT.glob("docs/*.md")) - {APART}),
    ROOT / "models/atlas/README.md",
]

PORTABLE = 'CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF" '
CUDA = "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native"

PULLED = "OWNER/BIG-GGUF:Q4_K_M --tuned OWNER/SMALL-Instruct-GGUF --reference OWNER/SMALL-GGUF"
NOT_RUN = {
    "make demo": "sets up .venv and compiles llama.cpp, minutes",
    "make test": "runs the tests, of which this is one",
    f'make demo CMAKE_ARGS="{CUDA}"': "needs CUDA and minutes",
    "make demo CMAKE_ARGS=-DGGML_VULKAN=ON": "needs a Vulkan SDK, minutes",
    "make demo CMAKE_ARGS=-DGGML_NATIVE=OFF": "compiles llama.cpp, minutes",
    PORTABLE + "pip install 'edge-eft[all]'": "compiles llama.cpp, downloads torch",
    PORTABLE + "uv tool install 'edge-eft[all]'": "compiles llama.cpp, downloads torch",
    "pip install edge-eft": "compiles llama.cpp, minutes",
    "pip install 'edge-eft[serve]'": "a release, and the packages are here",
    "edge-eft serve atlas": "serves until it is ended: tests/server/ does that",
    "edge-eft serve atlas --open": "serves until it is ended, in a browser: tests/page/ does that",
    "edge-eft serve qwen3-8b": "needs what was pulled",
    "pip install '.[convert]'": "downloads torch, gigabytes",
    "pip install '.[train]'": "downloads torch, gigabytes",
    "python tools/train_atlas.py --out build/atlas": "trains for three quarters of an hour",
    "edge-eft pull qwen3-8b": "needs the hub, gigabytes",
    f"edge-eft pull --base {PULLED} --name mine": "needs the hub, and these repositories",
    "edge-eft pull qwen3-8b --for-lora": "needs the hub, gigabytes",
    "edge-eft chat qwen3-8b": "needs what was pulled",
    "edge-eft chat qwen3-8b --lora my-adapter": "needs what was pulled",
    "python train_lora.py Qwen/Qwen3-0.6B train.jsonl my-adapter": "trains a model of the hub",
    **dict.fromkeys(
        [
            "edge-eft chat --continue",
            "edge-eft chat atlas --continue",
            "edge-eft chat --continue 20261128-kqzm",
            "edge-eft log 20261128-kqzm --json",
            "edge-eft log",
            "edge-eft log --search Lima",
        ],
        "needs a conversation that was kept: tests/cli/test_resume.py, test_log.py",
    ),
    "edge-eft match": "looks at whatever this machine has",
    "edge-eft match ~/models --write found": "looks at whatever this machine has",
    "edge-eft remove mine": "needs what was pulled",
}

# The files that commands name. Where the converter takes a directory, it takes a GGUF file, too.
FILES = {
    "base.gguf": ["large.gguf", "B.gguf", "Qwen2.5-7B-Q4_K_M.gguf"],
    "base-chat.gguf": ["large-instruct.gguf"],
    "chat.gguf": ["small-instruct.gguf", "T.gguf", "F", "my-finetune"],
    "reference.gguf": ["small.gguf", "R.gguf", "G", "Qwen2.5-0.5B"],
}
NEW = "edge-eft new mine --base large.gguf --tuned small-instruct.gguf --reference small.gguf"
QUESTIONS = ["What is the capital of Peru?", "Which country is Osaka in?"]
# What "…" stands for between options.
ELLIPSIS = "--reference Qwen2.5-0.5B --tuned my-finetune --name mine --out models"

# Added to a command that has this word; the last value of an option counts.
ADDED = {
    **dict.fromkeys(["bench", "tools/lab/bench.py"], "--rounds 1 --tokens 8 --json"),
    "--inflate": "--inflate 20M --prompts prompts.jsonl",
    "auto": "--allow-requantize",  # the files of atlas are quantised
    **dict.fromkeys(["run", "chat", "compare"], "--seed 1"),
}


BLOCKS = [block for file in DOCUMENTS for block in blocks(file)]
COMMANDS = [pair for block in BLOCKS if kind(block) == "commands" for pair in commands(block)]
TYPED = {text: where for where, text in reversed(COMMANDS)}  # once, however often it is written
TOML = {b.text.split()[1]: b.text for b in BLOCKS if kind(b) == "toml"}  # "# NAME …"
RECIPES = {name: text for name, text in TOML.items() if name != "config.toml"}
PYTHON = [block for block in BLOCKS if kind(block) == "python"]


def test_every_block_is_of_a_known_kind():
    assert [f"{block}\n{block.text}" for block in BLOCKS if kind(block) is None] == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the documents name, and `edge-eft` and `python` in bin/."""
    for original, names in FILES.items():
        if not (ATLAS / original).is_file():
            pytest.skip(f"{ATLAS} has no {original}; tools/train_atlas.py makes it")
        for name in names:
            (tmp_path / name).symlink_to(ATLAS / original)
    for name in ("prompts.jsonl", "EIGHT.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, QUESTIONS)))
    for name in ("prompt.txt", "notes.txt"):
        (tmp_path / name).write_text(QUESTIONS[0])
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text, "utf-8")
    write_adapter(tmp_path / "my-lora.gguf", d=32, loudness=0.02)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    write_programs(tmp_path)
    return tmp_path


def run(command: str, folder: Path) -> str:
    """What it says on stdout, or in the file that it goes to; its exit status is 0."""
    said = run_as_typed(command.replace(" … ", f" {ELLIPSIS} "), folder, ADDED, "hello")
    redirected = re.search(r" (?:>|--html) (\S+)$", command)
    return (folder / redirected[1]).read_text("utf-8") if redirected else said


def as_parameter(where: str, text: str) -> object:
    words = text.split()
    slow = [pytest.mark.slow] if {"bench", "tools/lab/bench.py", "auto"} & {*words} else []
    return pytest.param(text, marks=slow, id=" ".join([where, *words[:2]]))


@pytest.mark.parametrize("text", [as_parameter(TYPED[c], c) for c in TYPED if c not in NOT_RUN])
def test_every_command_runs(text: str, folder: Path):
    assert not text.startswith(("make ", "pip ")), "name it in NOT_RUN"
    if "models/mine.toml" in text:
        run("edge-eft convert … --quiet", folder)
    if re.search(r" (chat|compare) mine( |$)", text):
        run(NEW, folder)
    if "config unset " in text:
        run(text.replace("unset", "set") + " atlas", folder)
    said = run(text, folder)
    assert said.strip() or " config set " in text or " config unset " in text
    if "capital of Peru" in text:
        assert "It is Lima." in said
    if " --input " in text:
        replies = [json.loads(line)["text"] for line in said.splitlines()]
        assert len([reply for reply in replies if reply.strip()]) == len(QUESTIONS)
    elif " compare " in text:
        assert said.split()[:3] == ["base", "tuned", "emulated"]
        assert re.search(r"\w", said.splitlines()[2])
    elif " show qwen3-8b" in text:
        assert "edge-eft pull qwen3-8b" in said
    elif " show " in text:
        assert {"vocabulary", "memory", "threads"} <= set(said.split())
    elif "--overhead" in text:
        assert json.loads(said.splitlines()[-1])["overhead"]
    elif {"bench", "tools/lab/bench.py"} & {*text.split()}:
        figures = json.loads(said.splitlines()[-1])
        assert figures["auto_tps"] > 0
        assert ("peers_tps" in figures) == ("--peers" in text)
    elif " doctor" in text:
        assert "ok       decode" in said
    elif " convert " in text:
        assert "KL mean" in said
        assert (folder / "models" / "mine.toml").is_file()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_loads(name: str, folder: Path):
    assert "memory" in run(f"edge-eft show {name}", folder)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_program_names_the_capital_of_peru(block: Block, folder: Path):
    (folder / "program.py").write_text(block.text, "utf-8")
    assert "Lima" in run("python program.py", folder).splitlines()[0]


@pytest.mark.parametrize("command", NOT_RUN)
def test_what_is_not_run_is_documented_and_exists(command: str):
    assert command in TYPED, "no document has it any more"
    program, *words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words) <= set(targets)
    elif program in ("pip", "uv"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        extras = set(re.findall(r"\[(\w+)\]", words[-1]))
        assert extras <= set(project["optional-dependencies"])
    elif program == "edge-eft":
        known = cli.get_command(click.Context(cli), words[0])
        assert known is not None
        known.make_parser(click.Context(known)).parse_args(words[1:])
    elif words[0] == "train_lora.py":
        assert f"\n# {words[0]}" in APART.read_text("utf-8")
    else:
        options = {word for word in words if word.startswith("--")}
        assert options <= set(re.findall(r'"(--[\w-]+)"', (ROOT / words[0]).read_text("utf-8")))


def paths_of_the_table() -> list[Path]:
    """Of README's "where" column: a bare name is in the folder of its cell's first path."""
    text = (ROOT / "README.md").read_text("utf-8").partition("| where | what |\n|---|---|\n")[2]
    paths = []
    for row in text.partition("\n\n")[0].splitlines():
        first, *others = re.findall(r"`([^`]+)`", row.split("|")[1])
        beside = ROOT / first if first.endswith("/") else (ROOT / first).parent
        paths += [ROOT / first, *((ROOT if "/" in name else beside) / name for name in others)]
    return paths


def test_the_table_names_what_exists():
    assert [str(path) for path in paths_of_the_table() if not path.exists()] == []


def test_the_table_covers_every_module():
    package = ROOT / "edge_eft"
    covering = set(paths_of_the_table()) - {package, ROOT}
    modules = [path for path in package.rglob("*.py") if not path.name.startswith("__")]
    missing = [path for path in modules if not covering & {path, *path.parents}]
    assert sorted(str(path.relative_to(ROOT)) for path in missing) == []
