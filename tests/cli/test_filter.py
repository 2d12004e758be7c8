"""Whatever a stranger wrote, a terminal is shown text: no sequences but our own styles.

Every command runs here with hostile text in every place that it shows, on a pseudo-terminal and on
real models, which say what is hostile, too.
"""

import ast
import io
import json
import re
import sys
from pathlib import Path

import pytest
from helpers import tiny_models
from helpers.cli_tools import wait_for
from helpers.kept_sessions import turn, write
from helpers.pseudo_terminal import OwnTerminal
from helpers.recipe_files import held_out
from helpers.tiny_models import EOS, byte_tokens, script, write_script

import edge_eft
from edge_eft import system
from edge_eft.cli.console import show, text
from edge_eft.cli.main import cli
from edge_eft.cli.progress import Display
from edge_eft.cli.terminal import compose, dim, say, style

# A title, a colour and a style that are not ours, a cleared screen, C1 sequences, DEL, NEL, line
# and paragraph separators, and every character with the property Bidi_Control.
EVIL = (
    "\x1b[35mpink\x1b[5m\x1b]0;title\x07\x1b[2J\x9b7m\x9d0;t\x9c\x08\x0c\r\x7f\x85"
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069end"
)
EVIL_NAME = EVIL.replace("\r", "")  # of a file
IN_A_RECIPE = re.sub("[\x00-\x1f\x7f-\x9f]", "", EVIL)  # where paths have no control characters
SAID = (
    "\x1b[5m\x9b7J\u2028\x07\x7f\r\u061c!"  # by a model: no byte twice, for each has one follower
)
OURS = re.compile(  # the last one wipes a display
    r"\x1b\[(?:0|(?:[12];)?3[1236]|[123]|(?:1;)?4;32|(?:1;)?7;31)m|\r(?:\x1b\[1A)?\x1b\[2K"
)
DRAWN = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")  # again, as Markdown under way is
HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.fixture
def shown(monkeypatch):
    """Run a command on a terminal. Returns what is shown, without our styles."""

    def run(*words, stdin="", status=0, columns=100):
        screen = OwnTerminal()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setenv("TERM", "xterm-256color")
            patch.delenv("NO_COLOR", raising=False)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            patch.setattr(sys, "stdout", screen.out)
            patch.setattr(sys, "stderr", screen.err)
            with pytest.raises(SystemExit) as end:
                cli.main([str(word) for word in words], prog_name="edge-eft")
        text = screen.text()
        assert end.value.code == status, text
        text = DRAWN.sub("", OURS.sub("", text))
        assert not HARMFUL.search(text), (words, text)
        return text

    return run


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three models with hostile names that say hostile things."""
    folder = tmp_path_factory.mktemp("evil")
    said = byte_tokens(SAID)
    rows = {"base": 12.0, "tuned": 10.0, "reference": 9.0}
    return {
        role: write_script(
            folder / f"{role}{IN_A_RECIPE}.gguf",
            script([*said, EOS], otherwise=said[0], strength=strength),
            name=EVIL,
        )
        for role, strength in rows.items()
    }


@pytest.fixture
def recipe(models, tmp_path):
    """A recipe with hostile text wherever text may stand."""

    def quoted(text):
        return json.dumps(str(text)).replace("\x7f", "\\u007f")

    def model(role, prompt):
        entries = f"file = {quoted(models[role])}, prompt = {quoted(prompt)}"
        return f"{{ {entries}, source = {quoted(EVIL)} }}"

    path = tmp_path / f"r{EVIL_NAME}.toml"
    inline = f"{EVIL}{{{{ messages[-1].content }}}}"
    path.write_text(
        f"name = {quoted(EVIL)}\ndescription = {quoted(EVIL)}\nlicense = {quoted(EVIL)}\n"
        f"n_ctx = 512\nbase = {model('base', 'plain')}\n[delta.d]\n"
        f"tuned = {model('tuned', 'template')}\nreference = {model('reference', inline)}\n"
        f"[provenance]\nby = {quoted(EVIL)}\n",
        "utf-8",
    )
    return path


GREEDY = ("--temperature", "0", "--max-tokens", "30", "--threads", "1")


# -- one command after the other -----------------------------------------------------------


def test_run_shows_a_hostile_reply_as_text(shown, recipe):
    # The alarm stays away, the separator ends a line.
    assert shown("run", recipe, "hi", "-v", *GREEDY).count("!\n") == 1
    assert "!" in shown("run", recipe, f"{EVIL}", "--system", EVIL, *GREEDY)


def test_run_with_many_prompts_shows_their_names_and_replies_as_text(shown, recipe, tmp_path):
    file = tmp_path / f"p{EVIL_NAME}.jsonl"
    file.write_text(json.dumps({"id": EVIL, "prompt": "hi"}) + '\n"ho"\n')
    text = shown("run", recipe, "--input", file, *GREEDY)
    assert text.count("!") == 2
    assert "pink" in text
    shown("run", recipe, "--input", file, "--json", *GREEDY)
    for line in (EVIL, json.dumps({EVIL: 1}), json.dumps({"prompt": 1, "messages": EVIL})):
        file.write_text(line)
        shown("run", recipe, "--input", file, status=2)


def test_compare_shows_hostile_replies_as_text(shown, recipe):
    for columns in (100, 40):
        assert shown("compare", recipe, EVIL, *GREEDY, columns=columns).count("!") == 3
    shown("compare", recipe, "hi", "--json", *GREEDY)


def test_chat_shows_replies_settings_and_saved_chats_as_text(shown, recipe, tmp_path):
    saved = tmp_path / f"c{EVIL_NAME}.json"
    content = {"system": EVIL, "settings": {}, "messages": [{"role": "user", "content": EVIL}]}
    saved.write_text(json.dumps(content))
    entries = (
        *(f"/load {saved}", "/system", "/regenerate", "/compare", "hi", "/compare hi", "/stats"),
        *(f"/save {saved}", f"/save {tmp_path}/{EVIL_NAME}/x", f"/load {EVIL_NAME}"),
        *(
            f"/{EVIL}",
            f"/set {EVIL} 1",
            f"/set alpha {EVIL}",
            f"/set only {EVIL}",
            f"/system {EVIL}",
        ),
    )
    lines = "\n".join(entry.replace("\r", "") for entry in entries)
    text = shown("chat", recipe, *GREEDY, stdin=lines, columns=400)
    assert "loaded 1 message " in text
    assert "saved 4 messages" in text
    assert text.count("edge-eft: ") == len(re.findall("(?m)^edge-eft: .*[a-z)]$", text)) == 6
    assert text.count("!") == 8


def test_kept_conversations_are_shown_as_text(shown, recipe, kept):
    said = turn("user", EVIL), turn("assistant", f"{EVIL}!")
    models = {"event": "models", "recipe": EVIL, "models": {"recipe": str(recipe)}}
    system = {"event": "system", "system": EVIL}
    path = write(kept, models, system, *said)
    write(kept, name=f"20261128-{EVIL_NAME}")
    (kept / "20261127-bbbb.jsonl").write_text(EVIL)
    assert shown("log").count("pink") == 2
    assert shown("log", "kq").count("pink") == 4
    assert "pink" in shown("log", EVIL, status=2)
    assert "pink" in shown("log", "--search", f"{EVIL}x", status=1)
    text = shown("chat", "--continue", *GREEDY, stdin=f"/sessions\n/sessions {EVIL_NAME}\n/explain")
    assert text.count("pink") > 5
    assert "\n2026" in text
    path.write_text(path.read_text().replace(str(recipe)[-5:], "x.toml"))
    assert "pink" in shown("chat", "--continue", "kq", status=2)


def test_an_explained_reply_is_shown_as_text(shown, recipe, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    text = shown("chat", recipe, *GREEDY, stdin="hi\n/explain")
    assert "10 times likelier" in text
    assert text.count("!") > 1


def test_inspect_shows_a_hostile_reply_and_the_file_as_text(shown, recipe, tmp_path):
    assert "10 times likelier" in shown("inspect", recipe, "hi", *GREEDY)
    for file in ("-", tmp_path / f"{EVIL_NAME}.html"):
        assert "pink" in shown("inspect", recipe, EVIL, *GREEDY, "--html", file)
    assert "pink" in shown("inspect", recipe, "hi", "--html", tmp_path / EVIL_NAME / "x", status=2)


def test_chat_shows_hostile_files_and_plain_replies_as_text(shown, recipe, tmp_path):
    notes = tmp_path / f"{EVIL_NAME}.txt"
    notes.write_text(EVIL)
    refused = tmp_path / f"x{EVIL_NAME}"
    refused.write_bytes(b"\xff")
    lines = f'read @"{notes}"\n@"{refused}"\n/edit {EVIL_NAME}\n'
    text = shown("chat", recipe, "--plain", *GREEDY, stdin=lines, columns=400)
    assert "is put into the message: " in text
    assert "is not UTF-8 text" in text
    assert text.count("edge-eft: ") == 2


def test_list_and_show_tell_of_a_hostile_recipe_as_text(shown, recipe, models, monkeypatch):
    with monkeypatch.context() as patch:
        for module in ("cli.shelf", "files.recipe_names"):
            patch.setattr(f"edge_eft.{module}.own_recipes", lambda: {EVIL: recipe})
        for columns in (100, 40):  # in columns, and one below the other
            assert "pink" in shown("list", columns=columns)
            assert "pink" in shown("verify", columns=columns)
        shown("list", "--json")
        assert "pink" in shown("remove", EVIL, status=2)
        assert "pink" in shown("show", "pink", status=2)
    text = shown("show", recipe, "--threads", "1")
    assert "pink end  pink end\nlicense  pink end\n" in text, "a field is one line"
    text = shown("show", recipe, "--threads", "1", "--full", columns=40)
    assert "prompt    inline Jinja" in text
    assert f"path\n  {recipe.parent}/rpink" in text
    shown("show", recipe, "--json", "--threads", "1")


def test_demo_shows_hostile_questions_and_answers_as_text(shown, recipe):
    held_out(recipe, [("capital", EVIL, EVIL, EVIL, EVIL)])
    for columns in (100, 40):
        assert "pink" in shown("demo", recipe, "--threads", "1", columns=columns)
    shown("demo", recipe, "--threads", "1", "--json")
    (recipe.with_suffix("") / "heldout.json").write_text(json.dumps({"questions": [{EVIL: 1}]}))
    shown("demo", recipe, status=2)
    shown("demo", recipe, "--delta", EVIL, status=2)


def test_new_shows_hostile_names_and_asks_hostile_models_as_text(
    shown, models, tmp_path, monkeypatch
):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path / "home"))
    files = [f"--{role}={models[role]}" for role in ("base", "tuned", "reference")]
    text = shown("new", "mine", *files, "--threads", "1", "--force")
    assert "led by tuned" in text
    shown("new", "mine", *files, "--threads", "1", "--force", "--json")
    assert "pink" in shown("new", EVIL, *files, status=2)
    for option in ("--format", "--base", "--tuned", "--n-ctx"):
        shown("new", "mine", *files, "--force", option, EVIL, status=2)
    assert not HARMFUL.search((system.recipe_directory() / "mine.toml").read_text("utf-8"))


def test_bench_shows_hostile_names_as_text(shown, recipe, prompts_file):
    options = ("--prompts", prompts_file, "--tokens", "4", "--rounds", "1", "--threads", "1")
    assert "tokens per second" in shown("bench", recipe, *options)


def test_convert_shows_hostile_names_as_text(shown, tmp_path):
    arguments = ("--reference", tmp_path / EVIL_NAME, "--tuned", f"{EVIL}={EVIL}", "--out", EVIL)
    shown("convert", *arguments, status=2)
    for option in ("--name", "--type", "--files", "--format", "--max-size", "--text"):
        shown("convert", *arguments, option, EVIL, status=2)


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "compare", "chat", "show", "bench", "demo"])
def test_hostile_arguments_are_refused_in_text(shown, command):
    for words in ([EVIL, EVIL], [f"--{EVIL}"], ["--threads", EVIL], ["atlas", EVIL, EVIL]):
        assert shown(command, *words, status=2).startswith("edge-eft: ")
    shown(EVIL, status=2)


def test_the_tokens_of_a_hostile_reply_are_shown_as_text(shown, recipe):
    text = shown("run", recipe, "hi", "-n", "8", "-t", "0", "--logprobs", "3", "--explain", "2")
    assert "emulated" in text
    assert "\\x1b" in text, "what cannot be seen is written out"


def test_hostile_defaults_are_shown_and_refused_in_text(shown, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_EFT_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(f"system = {json.dumps(EVIL)}\n".replace("\x7f", ""))
    assert "pink" in shown("config")
    monkeypatch.setenv("EDGE_EFT_SEED", EVIL)
    assert shown("config", status=2).startswith("edge-eft: EDGE_EFT_SEED is ")
    shown("config", "set", EVIL, "1", status=2)


def test_hostile_settings_are_refused_in_text(shown, recipe):
    for name in ("--alpha", "--mix", "--only", "--seed", "--format"):
        shown("run", recipe, "hi", name, EVIL, status=2)


@pytest.mark.parametrize("key", ["file", "prompt", "sha256", "on", EVIL], ids=range(5))
def test_hostile_recipes_are_refused_in_text(shown, tmp_path, key):
    path = tmp_path / "r.toml"
    name, value = (json.dumps(text).replace("\x7f", "\\u007f") for text in (key, EVIL))
    path.write_text(f"base = {{ {name} = {value} }}\n[delta.{value}]\n")
    shown("run", path, "hi", status=2)
    path.write_text(f"[delta.d]\nreference = {{ file = 'x' }}\ntuned = {{ {name} = {value} }}\n")
    shown("run", path, "hi", status=2)
    path.write_text(f"{EVIL} = ")
    shown("run", path, "hi", status=2)


def test_hostile_metadata_is_refused_in_text(shown, recipe, tmp_path):
    template = tiny_models.write_random(
        tmp_path / "t.gguf", 1, chat_template=f"{{{{ raise_exception({EVIL!r}) }}}}"
    )
    files = {role: f"--{role}={template}" for role in ("base", "reference")}
    other = tiny_models.write_random(tmp_path / "u.gguf", 2, chat_template="{% " + EVIL)
    for tuned in (template, other):
        text = shown(
            "run", *files.values(), f"--tuned={tuned}", "--format", "template", "x", status=2
        )
        assert text.count("\n") == 1
    damaged = tmp_path / "d.gguf"
    data = template.read_bytes()
    for old in (b"llama.block_count", b"token_embd.weight", b"general.architecture"):
        damaged.write_bytes(data.replace(old, ("\x1b[5m\x9b\u2028" * 9).encode()[: len(old)]))
        shown("run", recipe, "hi", "--base", damaged, status=2)


# -- the parts -----------------------------------------------------------------------------


def test_what_is_styled_is_filtered_first_and_what_is_not_composed_loses_its_style(capsys):
    assert compose("a\x1b[31m", dim("b\x9b1m"), style("\u202ec", bold=True)) == (
        "a\x1b[2mb\x1b[0m\x1b[1mc\x1b[0m"
    )
    assert compose(f"{dim('x')}") == "x"
    assert compose(dim("x") + "\x1b[5my") == "xy"
    assert compose("a\x1b", "[5mb") == "a[5mb", "no sequence grows out of two pieces"
    say("a\u2028b\ud800c")
    assert capsys.readouterr().out == "a\nb\ufffdc\n"


def test_emoji_joiners_and_variation_selectors_pass(capsys):
    text = "👩\u200d🚀 ❤\ufe0f می\u200cخواهم e\u0301 \u3000\u00a0"
    say(text)
    assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize("total", [None, 2])
def test_a_display_has_a_harmless_label(monkeypatch, total):
    monkeypatch.setattr(Display, "delay", 0.0)
    screen = OwnTerminal()
    monkeypatch.setattr(sys, "stderr", screen.err)
    with Display("x") as display:
        display.update(1, total, f"x{EVIL}")
        wait_for(lambda: b"pink" in screen.data)
    text = OURS.sub("", screen.text())
    assert not HARMFUL.search(text)


def test_what_rich_renders_is_text(monkeypatch):
    """Also where somebody forgot `text`: a table's cell, a title, Markdown with a link."""
    from rich.markdown import Markdown
    from rich.table import Table

    screen = OwnTerminal()
    monkeypatch.setattr(sys, "stdout", screen.out)
    monkeypatch.setenv("TERM", "xterm-256color")
    table = Table(EVIL, title=EVIL, caption=f"[red]{EVIL}[/red]")
    table.add_row(text(EVIL, "bold"))
    linked = Markdown(f"# {EVIL}\n\n[x](file:///{EVIL}) `{EVIL}`", hyperlinks=False)
    show(table, linked, text(EVIL), EVIL)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.text())
    assert shown.count("pink") == 9
    assert "[red]" in shown
    assert not HARMFUL.search(shown)


# -- nothing goes round it -----------------------------------------------------------------

PRINTS = {"echo", "secho", "progressbar", "prompt", "confirm", "pause", "echo_via_pager", "edit"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
MAY_PRINT = {
    "cli/terminal.py",
    "cli/console.py",
    "llama_build.py",
}  # the latter runs before we are installed
# The supervisor's parent has no Python streams that it may trust; it says `one_line`.
# A watchdog's last words go to the stderr that was, before native code is given another.
MAY_WRITE = {"cli/supervise.py", "engine/deadline.py"}


def printers(tree):
    """What in a module prints, makes what counts as filtered, or writes to a standard stream."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from {"print", "pprint", "Styled", "Console"} & {node.func.id}
        if isinstance(node, ast.ClassDef):  # rich's own has no filter
            yield from (base.id for base in node.bases if getattr(base, "id", "") == "Console")
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        if owner == "click" and node.attr in PRINTS:
            yield f"click.{node.attr}"
        if node.attr in {"write", "writelines", "buffer"} and owner.rpartition(".")[2] in STREAMS:
            yield f"{owner}.{node.attr}"
        if (owner, node.attr) in {("logging", "StreamHandler"), ("os", "write")}:
            yield f"{owner}.{node.attr}"


def test_only_the_terminal_prints():
    package = Path(edge_eft.__file__).parent
    found = {
        path.relative_to(package).as_posix(): set(printers(ast.parse(path.read_text("utf-8"))))
        for path in package.rglob("*.py")
    }
    assert {"click.echo", "sys.stdout.write"} <= found["cli/terminal.py"], "they are seen"
    others = {name: what for name, what in found.items() if what and name not in MAY_PRINT}
    assert others == {name: {"os.write"} for name in MAY_WRITE}
