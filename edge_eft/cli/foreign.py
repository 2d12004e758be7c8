"""What ollama, llama-cli, mlx-lm and llm call things, and what to type here in their place."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

import click

# Each option of theirs → ours, or a sentence on what to do; {value} is the word that followed it.
OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("-c", "--ctx-size", "--num-ctx", "--max-kv-size"), "--n-ctx"),
    **dict.fromkeys(("--n-predict", "--predict", "--num-predict"), "--max-tokens"),
    **dict.fromkeys(("-ngl", "--ngl", "--n-gpu-layers", "--num-gpu"), "--gpu-layers"),
    "-temp": "--temperature",
    **dict.fromkeys(("-sys", "--system-prompt"), "--system"),
    "--repeat-penalty": "--repetition-penalty",
    **dict.fromkeys(("--adapter-path", "--adapter"), "--lora"),
    **dict.fromkeys(("--json-schema", "--schema-file"), "--schema"),
    **dict.fromkeys(("-p", "--prompt"), "the prompt needs no option: edge-eft {command} {value}"),
    **dict.fromkeys(
        ("-f", "--file"),
        "a file goes in by stdin: edge-eft run < {value}, or as @{value} in a chat",
    ),
    **dict.fromkeys(("--stream", "--no-stream"), "replies are shown as they come; leave it out"),
    **dict.fromkeys(
        ("-i", "--interactive", "--interactive-first", "-cnv", "--conversation"),
        "a conversation is edge-eft chat",
    ),
    **dict.fromkeys(
        ("-no-cnv", "--no-conversation", "-st", "--single-turn"),
        "edge-eft run answers once; leave it out",
    ),
    **dict.fromkeys(("-hf", "--hf-repo"), "edge-eft pull gets models: edge-eft pull {value}"),
    **dict.fromkeys(("-md", "--model-draft", "--draft-model"), "the tuned model drafts: --draft N"),
    **dict.fromkeys(("-o", "--option"), "a setting is an option: --temperature 0.7, say"),
    **dict.fromkeys(
        ("--think", "--hidethinking"),
        """what a template takes goes so: --chat-template-kwargs '{{"enable_thinking": false}}'""",
    ),
    "--continue": "edge-eft chat --continue goes on with a conversation",
    "--keepalive": "models stay loaded in edge-eft serve alone, which has --keep-alive",
    "--attachment": "a text goes in by stdin: edge-eft run < {value}",
}
# Of llama-cli, with one dash: click would read them as letters, -ngl 99 as -n gl.
_ONE_DASH = [name for name in OPTIONS if len(name) > 2 and name[1] != "-"]

_COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("create", "init", "add", "make"), "edge-eft new NAME makes a recipe"),
    **dict.fromkeys(("generate", "ask", "prompt", "complete", "answer"), "edge-eft run answers"),
    **dict.fromkeys(("history", "sessions", "conversations"), "edge-eft log lists conversations"),
    **dict.fromkeys(("models", "recipes", "tags"), "edge-eft list lists the recipes"),
    **dict.fromkeys(("download", "get", "install", "fetch"), "edge-eft pull gets models"),
    **dict.fromkeys(("delete", "uninstall", "del"), "edge-eft remove takes a recipe away"),
    **dict.fromkeys(("info", "describe"), "edge-eft show shows a recipe"),
    **dict.fromkeys(("settings", "set", "options"), "edge-eft config has your defaults"),
    **dict.fromkeys(("server", "start", "api"), "edge-eft serve serves recipes"),
    **dict.fromkeys(("interactive", "repl", "talk"), "edge-eft chat is a conversation"),
    **dict.fromkeys(("benchmark", "perf"), "edge-eft bench measures"),
    **dict.fromkeys(("check", "diagnose"), "edge-eft doctor looks at this installation"),
    **dict.fromkeys(("quantize", "quantise"), "edge-eft convert quantises a tuned model"),
    **dict.fromkeys(
        ("ps", "stop", "load", "unload", "status"),
        "models are loaded by run and chat until they end, and by edge-eft serve as asked for",
    ),
    **dict.fromkeys(
        ("rename", "mv", "cp", "copy"),
        "edge-eft new makes a recipe under another name, and edge-eft remove takes one away",
    ),
    "push": "recipes are not published from here",
    "version": "it is edge-eft --version",
}


def check(words: Sequence[str], ctx: click.Context) -> None:
    """Raise UsageError if an option is one of theirs which click would take for another.

    Args:
        words: of the command line, before click has read them.
        ctx: the command's.
    """
    from ..text.formats import FORMATS

    words = words[: list(words).index("--")] if "--" in words else words
    names = {name for param in ctx.command.params for name in param.opts}
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        value = value if equals else "".join(words[i + 1 : i + 2])
        if word in _ONE_DASH and word not in names:
            raise click.UsageError(instead(word, words, ctx) or word, ctx)
        # It was once the name of --format.
        was_format = not value or value in FORMATS or "{" in value
        if name == "--prompt" in names and not was_format:
            told = instead(name, [*words[:i], name, value], ctx)
            raise click.UsageError(f"{told} (the prompt's format is --format)", ctx)


def instead(name: str, words: Sequence[str], ctx: click.Context) -> str | None:
    """Return what to type for an option of another program; None if it is not known.

    Args:
        name: the option.
        words: of the command line, `name` among them.
        ctx: the command's.
    """
    names = {each for param in ctx.command.params for each in param.opts}
    letters = re.sub("[-_]", "", name) if name.startswith("--") else ""  # --max_tokens, --keepalive
    same = (each for each in sorted(names) if each.replace("-", "") == letters)
    spelt = next(same, None) if name not in names and len(letters) > 2 else None
    told = spelt or OPTIONS.get(name)
    if name in ("-c", "--continue") and "-c" not in names and not _value(name, words).isdigit():
        told = OPTIONS["--continue"]
    if told is None:
        return None
    value = _value(name, words)
    if not told.startswith("--"):
        own = ctx.command.name
        command = own if own in ("compare", "inspect") else "run"
        shown = shlex.quote(value) if value else "…"
        return f"there is no option {name}; {told.format(value=shown, command=command)}"
    if told not in names:
        return None
    shown = f" {shlex.quote(value)}" if value and not value.startswith("-") else ""
    return f"there is no option {name}; here it is {told}{shown[:200]}"


def _value(name: str, words: Sequence[str]) -> str:
    """Return the word that follows an option, "" if none does."""
    for i, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name:
            return "".join(words[i + 1 : i + 2])
    return ""


def command_instead(words: Sequence[str]) -> str | None:
    """Return what was meant by words that begin with no command; None if nobody can tell.

    Args:
        words: the command line from that word on.
    """
    from ..files.recipe_names import list_recipes, named
    from .naming import looks_like_prompt, mistaken

    word, rest = words[0], words[1:]
    line = " ".join(map(shlex.quote, words)) if len(" ".join(words)) < 200 else "…"
    if told := _COMMANDS.get(word.lower()):
        return f"there is no command {word!r:.80}; {told}"
    recipes = list_recipes()
    if named(word, recipes):
        more = "" if rest else f" 'a prompt', or edge-eft chat {line}"
        return f"{word!r:.80} is a recipe, and a command comes first: edge-eft run {line}{more}"
    if looks_like_prompt(word, recipes):
        return f"{word!r:.80} looks like a prompt: edge-eft run {line} answers it"
    return mistaken(word, rest, "run")
