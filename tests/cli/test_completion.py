"""What a shell is told that a word may be."""

import os
import subprocess
import sys

from click.shell_completion import ShellComplete

from edge_eft.cli.main import cli


def completed(*words):
    """The names, or "file", that may stand where the last of `words` is being typed."""
    found = ShellComplete(cli, {}, "edge-eft", "_X").get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else item.type for item in found]


def test_the_first_word_is_completed_to_a_recipe(installed, pull):
    pull("mine")
    names = ["family", "large-4b", "large-700b", "large-8b", "mine"]
    for command in ("run", "chat", "show", "bench", "compare"):
        assert completed(command, "") == names
    assert completed("chat", "large-") == names[1:4]
    assert completed("chat", "./") == ["file"]


def test_a_prompt_is_not_completed(installed):
    assert completed("run", "family", "") == []
    assert completed("run", "--tuned", "t.gguf", "") == []


def test_verify_and_remove_complete_to_what_is_here(installed, pull):
    pull("mine")
    pull("other")
    assert completed("verify", "") == ["family", "mine", "other"]
    assert completed("remove", "") == completed("rm", "") == ["mine", "other"]
    assert completed("remove", "mine", "") == ["other"]


def test_completing_a_name_loads_nothing_heavy(installed):
    script = (
        "import sys, atexit\n"
        "heavy = ('numpy', 'llama_cpp', 'jinja2', 'prompt_toolkit', 'huggingface_hub', 'psutil')\n"
        "atexit.register(lambda: print([n for n in heavy if n in sys.modules], file=sys.stderr))\n"
        "from edge_eft.cli.main import main\nsys.argv = ['edge-eft']\nmain()"
    )
    words = {"COMP_WORDS": "edge-eft chat at", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **words, "_EDGE_EFT_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "plain,atlas" in done.stdout
    assert done.stderr == "[]\n"
