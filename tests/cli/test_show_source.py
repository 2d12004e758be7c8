"""`edge-eft show` of what is not pulled yet, and what other commands say of it."""

import json

import pytest
from helpers.cli_tools import complaint, invoke
from helpers.hub_cache import COMMIT, files_below

from edge_eft.cli.show_source import prompt_name, source_line
from edge_eft.files.pulled import forget

SOURCE = {
    "repo": "o/n",
    "file": "m.gguf",
    "revision": COMMIT,
    "size": 5,
    "gated": True,
    "confidence": "exact",
}


def test_what_is_not_pulled_is_shown_without_loading(installed):
    assert invoke("show", "large-8b").stdout.splitlines() == [
        "large-8b  Large, led by small",
        "license  Apache-2.0",
        "",
        "role            model                                 to fetch  prompt",
        "─" * 72,
        "base            o/large-8b-GGUF Large-8B.Q4_K_M.gguf    5.0 GB",
        "tuned:chat      o/tuned m.Q8_0.gguf                     600 MB  template",
        "reference:chat  o/reference m.Q8_0.gguf                 600 MB",
        "instruct        o/large-it-GGUF Large-it.Q8_0.gguf           ?",
        "  instruct: the base for --lora ADAPTER",
        "",
        "deltas       chat × 1",
        "drafts       each reads 0.12 of the base's bytes; texts equal up to rounding",
        "memory       about 7.1 GB at n_ctx 4096: fits here",
        "get it with  edge-eft pull large-8b",
        "to fetch     6.2 GB",
        "gated        accept the licence on the hub's page first",
    ]
    text = invoke("show", "large-8b", "--full").stdout
    for line in (
        "large-8b  Large, led by small",
        "file    to be pulled, 5.0 GB",
        "source  o/large-8b-GGUF Large-8B.Q4_K_M.gguf, newest revision (file name seen by the "
        "catalogue's\n        authors, size about right; gated)",
        "instruct  the base for --lora ADAPTER",
        "drafts       each reads 0.12 of the base's bytes; texts equal up to rounding",
        "get it with  edge-eft pull large-8b\nto fetch     6.2 GB\n",
        "gated        accept the licence on the hub's page first",
    ):
        assert line in text
    (memory,) = [line for line in text.splitlines() if line.startswith("memory")]
    assert memory.endswith(" GB at n_ctx 4096: fits here")
    about = json.loads(invoke("show", "large-8b", "--json").stdout)
    assert about["pull"] == "edge-eft pull large-8b"
    assert (about["kind"], about["state"], about["gated"]) == ("catalogue", "to pull", True)
    assert about["models"]["instruct"]["source"]["repo"] == "o/large-it-GGUF"
    assert "more than this machine has" in invoke("show", "large-700b").stdout


def test_what_is_here_is_shown_with_its_source_and_the_instruct_model(installed, pull):
    path = pull("mine")
    source = '{ repo = "o/it", file = "it.gguf" }'
    path.write_text(path.read_text() + f"\n[instruct]\nsource = {source}\n")
    assert "instruct    o/it it.gguf, the base for --lora" in invoke("show", "mine").stdout
    text = invoke("show", "mine", "--threads", "1", "--full").stdout
    assert f"source   o/base m.Q8_0.gguf at {COMMIT[:12]} (as pulled)" in text
    assert "instruct  the base for --lora ADAPTER" in text
    assert "o/it it.gguf, newest revision" in text
    about = json.loads(invoke("show", "mine", "--json", "--threads", "1").stdout)
    assert about["instruct"]["here"] is False
    assert about["roles"]["base"]["source"]["repo"] == "o/base"


def test_a_source_is_one_line():
    assert (
        source_line(SOURCE)
        == f"o/n m.gguf at {COMMIT[:12]} (size or hash seen by the catalogue's authors; gated)"
    )
    assert source_line(SOURCE | {"revision": None, "gated": False, "confidence": None}) == (
        "o/n m.gguf, newest revision (pull looks for it)"
    )
    assert source_line("build/x\n\x1b[2Jy") == "build/x y"


def test_a_prompt_format_is_shown_by_its_name():
    """A named template was called inline Jinja."""
    for name in ("plain", "template", "template:tool_use"):
        assert prompt_name(name) == name
    assert prompt_name("{{ messages[0].content }}") == "inline Jinja"


@pytest.mark.parametrize("command", ["chat", "run", "bench", "compare"])
def test_what_is_not_pulled_is_not_run_and_the_command_is_told(installed, command):
    prompt = ["hi"] * (command in ("run", "compare"))
    assert complaint(command, "large-8b", *prompt, stdin="") == (
        "edge-eft: recipe 'large-8b': base, tuned:chat, reference:chat not on this machine yet; "
        "get it with edge-eft pull large-8b (6.2 GB to fetch)\n"
    )


def test_a_file_that_is_gone_from_the_cache_is_told_with_the_command(installed, pull, tmp_path):
    pull("mine")
    name = next(n for n in files_below(tmp_path / "hub") if "o--base/snapshots" in n)
    forget([tmp_path / "hub" / name])
    for command in ("chat", "show"):
        assert "get it again with edge-eft pull mine\n" in complaint(command, "mine", stdin="")


def test_a_name_that_nobody_has_comes_with_the_nearest(installed):
    assert complaint("show", "large") == (
        "edge-eft: recipe 'large' is not known; near: large-4b, large-8b, large-700b "
        "(edge-eft pull large-4b)\n"
    )
    assert complaint("chat", "famly", stdin="") == (
        "edge-eft: recipe 'famly' is not known; near: family; edge-eft chat family\n"
    )
    assert "shows the names, or give the path of a TOML file" in complaint("run", "zzz", "hi")
