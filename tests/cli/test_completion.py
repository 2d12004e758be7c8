"""What a shell is told that a word may be."""

import os
import shutil
import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete
from helpers.cli_tools import invoke
from helpers.documents import ROOT, write_programs

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


# -- values ----------------------------------------------------------------------------------


def test_files_are_gguf_files_and_directories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("a.gguf", "B.GGUF", "notes.txt", ".hidden.gguf", "models/c.gguf"):
        (tmp_path / name).touch()
    for option in ("--base", "--tuned", "--reference", "--lora"):
        assert completed("run", option, "") == ["B.GGUF", "a.gguf", "models/"]
    assert completed("run", "--base", "a") == ["a.gguf"]
    assert completed("run", "--base", "models/") == ["models/c.gguf"]
    assert completed("run", "--base", "nowhere/") == []


def test_options_that_name_a_recipe_complete_to_recipes(installed):
    for option in ("-m", "--model"):
        assert completed("run", option, "fam") == ["family"]
    assert completed("run", "-m", "family", "") == []


def test_formats_roles_deltas_and_types_are_completed():
    assert completed("run", "--format", "") == ["template", "chatml", "plain", "transcript"]
    roles = ["base", "tuned", "reference", "tuned:chat", "tuned:brief", "tuned:discreet"]
    assert completed("run", "atlas", "--only", "") == roles
    assert completed("run", "--only", "tuned:c") == ["tuned:chat"]
    assert completed("run", "nosuch", "--only", "") == roles[:3]
    assert completed("demo", "--delta", "") == ["chat", "brief", "discreet"]
    assert completed("run", "atlas", "--mix", "") == ["chat=", "brief=", "discreet="]
    assert completed("run", "--mix", "chat=.5,b") == ["chat=.5,brief="]
    assert completed("convert", "--type", "q4_k") == ["q4_k_m", "q4_k_s"]
    assert completed("convert", "--type", "a") == ["auto"]
    assert completed("completion", "") == ["bash", "zsh", "fish"]


def test_keys_of_the_configuration_are_completed():
    assert completed("config", "set", "temp") == ["temperature"]
    assert completed("config", "unset", "chat.") == []
    assert "set" in completed("config", "")


def test_a_wrong_file_of_defaults_does_not_end_completion(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text("what")
    assert "atlas" in completed("run", "")


# -- in a shell ----------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(shell):
    script = invoke("completion", shell).stdout
    assert f"_EDGE_EFT_COMPLETE={shell}_complete" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=script, text=True, check=True, timeout=30)


def typed_in_bash(line, folder):
    """What bash itself offers for a line, after the script has been read."""
    words = line.split(" ")
    script = (
        f'eval "$(edge-eft completion bash)"\ncompopt() {{ echo "compopt $*" >&2; }}\n'
        f"COMP_WORDS=({line})\nCOMP_CWORD={len(words) - 1}\n"
        f"_edge_eft_completion edge-eft\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines(), done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_itself_completes(tmp_path):
    write_programs(tmp_path)
    (tmp_path / "models").mkdir()
    assert typed_in_bash("edge-eft run atl", tmp_path) == (["atlas", "atlas-down"], "")
    found, said = typed_in_bash("edge-eft run --base mo", tmp_path)
    assert found == ["models/"]
    assert said.split() == ["compopt", "-o", "nospace"], "the directory's files can follow"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_gets_names_that_it_does_not_run(tmp_path):
    """A file called $(touch x).gguf was put into the line as it is, and Enter ran it."""
    write_programs(tmp_path)
    for name in ("$(touch x).gguf", "*.gguf", "a b.gguf", "é;c.gguf", "line\nplain,end.gguf"):
        (tmp_path / name).touch()
    found, _ = typed_in_bash("edge-eft run --base ''", tmp_path)
    found.remove("bin/")
    assert found == [r"\$\(touch\ x\).gguf", r"\*.gguf", r"a\ b.gguf", r"é\;c.gguf"]
    assert not (tmp_path / "x").exists()
    assert typed_in_bash("edge-eft run --base '\"a'", tmp_path)[0] == ["a b.gguf"]
    assert typed_in_bash("edge-eft run --base '\"$'", tmp_path)[0] == [""], "quotes do not help"
