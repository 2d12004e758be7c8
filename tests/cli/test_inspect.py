"""`edge-eft inspect`: a reply shaded on a terminal, and as a file that needs nothing else."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from helpers.cli_tools import complaint, invoke, process

from edge_eft.cli.inspect_page import page

QUESTION = "What is the capital of Peru?"
GREEDY = ("-t", "0", "-n", "8")
HOSTILE = "</script><!--<script><img src=x onerror=alert(1)>\x1b[2J\u202e"


@pytest.fixture(scope="module")
def peru(tmp_path_factory):
    """The text of the file that is written."""
    file = tmp_path_factory.mktemp("pages") / "peru.html"
    result = invoke("inspect", "atlas", QUESTION, *GREEDY, "--html", file)
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(r".*peru\.html: 4 tokens, \d+ kB\n", result.stderr)
    return file.read_text("utf-8")


def reply_of(text):
    return json.loads(text.partition('id="reply">')[2].partition("</script>")[0])


def test_without_a_file_the_reply_is_shown_with_what_the_delta_did():
    result = invoke("inspect", "atlas", QUESTION, *GREEDY)
    lines = [line.split(maxsplit=3) for line in result.stdout.splitlines()]
    assert [json.loads(text) for *_, text in lines] == [" It", " is", " Lima", "."]
    assert float(lines[0][0]) > 2, "the tuned manner is far likelier than under the base"


def test_the_file_has_the_reply_with_what_each_model_thought(peru):
    reply = reply_of(peru)
    assert [entry["token"] for entry in reply["explain"]] == [" It", " is", " Lima", "."]
    assert reply["marks"] == [{"at": 0, "weights": {}}]
    assert reply["deltas"]["chat"] == 1
    roles = {"emulated", "base", "tuned:chat", "reference:chat"}
    for entry in reply["explain"]:
        assert roles <= set(entry) & set(entry["candidates"][0]["logprobs"])
        assert entry["id"] in [one["id"] for one in entry["candidates"]]


def test_the_file_names_what_is_needed_to_have_the_reply_again(peru):
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", peru))
    assert figures["recipe"] == "atlas"
    assert figures["base"] == "base.gguf (Q8_0)"
    assert (figures["α"], figures["temperature"], figures["tokens"]) == ("1", "0", "4")
    assert figures["seed"].isdecimal()
    assert not any(role.endswith(":brief") for role in figures), "it had no weight"


def test_the_file_needs_nothing_else_and_forbids_all_but_its_own(peru):
    assert re.findall(r"""\b(?:src|href|url|@import)\s*[=(]""", peru) == []
    policy = re.search(r'Policy" content="(.*?)"', peru)[1]
    script = peru.partition('<script type="module">')[2].partition("</script>")[0]
    style = peru.partition("<style>")[2].partition("</style>")[0]
    for text, kind in ((script, "script"), (style, "style")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"^(import|export)\b", script, re.MULTILINE)


def test_what_a_stranger_wrote_stays_text():
    entry = {"id": 1, "token": HOSTILE, "drafted": None, "candidates": []}
    figures = [(HOSTILE, HOSTILE)]
    text = page(HOSTILE, HOSTILE, HOSTILE, figures, {"explain": [entry]})
    assert "<img" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert reply_of(text)["explain"][0]["token"] == HOSTILE


def test_a_dash_is_stdout_and_other_weights_are_told():
    given = ("--mix", "chat=.5,brief=.25", "-a", "0.5", "--seed", "7", "-n", "3")
    result = invoke("inspect", "atlas", QUESTION, *given, "--html", "-")
    assert result.stderr == ""
    mix = {"chat": 0.5, "brief": 0.25}
    assert reply_of(result.stdout)["marks"][0]["weights"] == {"alpha": 0.5, "mix": mix}
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", result.stdout))
    assert figures["mix"] == "chat 0.5, brief 0.25"
    assert {"tuned:brief", "reference:chat"} <= set(figures)
    assert figures["seed"] == "7"


def test_a_file_that_is_there_is_replaced_only_if_that_is_asked(tmp_path):
    file = tmp_path / "kept.html"
    file.write_text("mine")
    assert "--force replaces it" in complaint("inspect", "atlas", QUESTION, "--html", file)
    assert file.read_text() == "mine"
    result = invoke("inspect", "atlas", QUESTION, *GREEDY, "--html", file, "--force")
    assert result.exit_code == 0
    assert file.read_text("utf-8").startswith("<!doctype html>")


def test_a_place_that_cannot_be_written_is_told_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_eft.cli.models.Models.load", lambda *_: pytest.fail("loaded"))
    asked = ("inspect", "atlas", QUESTION)
    assert "is a directory" in complaint(*asked, "--html", tmp_path)
    assert "there is no directory" in complaint(*asked, "--html", tmp_path / "none" / "x.html")
    assert "--force replaces the FILE of --html" in complaint(*asked, "--force")
    kept = tmp_path / "kept.html"
    kept.touch()
    monkeypatch.setattr("os.access", lambda path, _: path not in (kept, tmp_path / "sub"))
    (tmp_path / "sub").mkdir()
    told = f"{kept} cannot be written"
    assert told in complaint(*asked, "--html", kept, "--force")
    told = f"{tmp_path / 'sub'} cannot be written"
    assert told in complaint(*asked, "--html", tmp_path / "sub" / "x.html")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_full_disk_is_told_with_the_file():
    told = complaint("inspect", "atlas", QUESTION, *GREEDY, "--html", "/dev/full", "--force")
    assert told == "edge-eft: /dev/full: cannot read or write (No space left on device)\n"


def test_stdout_is_utf_8_whatever_the_terminal_has():
    """In another encoding the hashes of the policy would not be the script's and the style's."""
    with process(
        *("inspect", "atlas", QUESTION, *GREEDY, "--html", "-"),
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    ) as running:
        assert 'content: "▾"' in running.communicate()[0]


def test_the_file_needs_no_web_framework():
    code = (
        "import sys\n"
        "sys.modules.update(starlette=None, uvicorn=None)\n"
        "from edge_eft.cli.main import cli\n"
        f"cli(['inspect', 'atlas', {QUESTION!r}, '-n', '2', '--html', '-'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.stdout.startswith(b"<!doctype html>"), done.stderr
