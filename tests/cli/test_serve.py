"""serve: what is wrong is one line before anything listens; then it serves until it is ended."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from helpers.cli_tools import complaint, invoke, process, wait_for

from edge_eft.cli import serve
from edge_eft.server import app as server_app


@pytest.fixture
def asked(monkeypatch):
    """The options that the server would be started with."""
    started = []
    monkeypatch.setattr(server_app, "serve", lambda options, ready: started.append(options))
    monkeypatch.delenv("EDGE_EFT_API_KEY", raising=False)
    return started


@contextlib.contextmanager
def running(*words, **options):
    """A server in a process of its own, and its address."""
    child = process("serve", *words, **options)
    try:
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


# -- options -------------------------------------------------------------------------------


def test_the_options_reach_the_server(asked, atlas):
    words = "--port 0 --slots 8 --queue 3 --keep-alive 90s --cors https://A.example --n-ctx 512"
    result = invoke("serve", "atlas", *words.split(), "--allow-host", "Box")
    assert result.exit_code == 0, result.output
    (options,) = asked
    assert (options.host, options.port, options.slots, options.queue) == ("127.0.0.1", 0, 8, 3)
    assert (options.keep_alive, options.n_ctx, options.api_keys) == (90.0, 512, ())
    assert (options.origins, options.hosts) == (("https://a.example",), ("box",))
    assert [model.name for model in options.recipes] == ["atlas"]
    assert str(atlas.base) in options.recipes[0].toml


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("5m", 300), ("300s", 300), ("7", 7), ("1.5h", 5400), ("0", 0), ("-1", None), ("never", None)],
)
def test_durations(asked, atlas, given, seconds):
    assert invoke("serve", "atlas", "--keep-alive", given).exit_code == 0
    assert asked[0].keep_alive == seconds


def test_several_recipes_and_three_files(asked, atlas):
    assert invoke("serve", "atlas", "atlas-down").exit_code == 0
    assert [model.name for model in asked[0].recipes] == ["atlas", "atlas-down"]
    files = ["--base", atlas.base, "--tuned", atlas.tuned, "--reference", atlas.reference]
    assert invoke("serve", *files).exit_code == 0
    assert len(asked[1].recipes) == 1


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ("no-such-recipe", "recipe 'no-such-recipe' is not known"),
        ("qwen3-8b", "edge-eft pull qwen3-8b"),
        ("atlas atlas", "two recipes are named 'atlas'"),
        ("atlas atlas-down --base b", "go with one recipe; 2 are named"),
        ("atlas --host 0.0.0.0", "lets other machines in: give --api-key-file"),
        ("atlas --host ::", "or say --no-api-key"),
        ("atlas --host 127.0.0.1.nip.io", "lets other machines in"),
        ("atlas --host=", "--host is empty"),
        ("atlas --api-key=", "not empty"),
        ("atlas --api-key a --no-api-key", "--api-key and --no-api-key exclude each other"),
        ("atlas --api-key a --api-key-file f", "--api-key and --api-key-file exclude each other"),
        ("atlas --api-key-file no-file", "no-file: cannot be read"),
        ("atlas --api-key-file .", ".: cannot be read (Is a directory)"),
        ("atlas --api-key-file /dev/null", "is not a file"),
        ("atlas --keep-alive soon", "--keep-alive is 'soon', not a duration; take 5m"),
        ("atlas --keep-alive -5", "--keep-alive is '-5', not a duration"),
        ("atlas --port 65536", "--port is 65536; it must be a whole number, 0 to 65,535"),
        ("atlas --slots 0", "--slots is 0"),
        ("atlas --cors a.example", "is not an origin"),
        ("atlas --cors https://a.example/path", "is not an origin"),
        ("atlas --allow-host http://a", "is not a host's name"),
    ],
)
def test_what_is_wrong_is_one_line(asked, atlas, arguments, seen):
    assert seen in complaint("serve", *arguments.split())
    assert asked == []


def test_a_missing_file_is_known_before(asked, tmp_path, atlas):
    files = ["--base", tmp_path / "gone.gguf", "--tuned", atlas.tuned]
    assert "gone.gguf" in complaint("serve", *files, "--reference", atlas.reference)
    assert asked == []


def test_without_the_extra_a_line_says_how_to_get_it(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'edge-eft[serve]'" in complaint("serve", "atlas")


# -- keys ----------------------------------------------------------------------------------


def key_file(folder, text, mode=0o600):
    path = folder / "key"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_come_from_an_option_a_file_or_the_environment(asked, atlas, tmp_path, monkeypatch):
    file = key_file(tmp_path, "one\n\ntwo\n")
    invoke("serve", "atlas", "--api-key-file", file, "--host", "0.0.0.0")
    monkeypatch.setenv("EDGE_EFT_API_KEY", "three")
    invoke("serve", "atlas", "--host", "0.0.0.0")
    invoke("serve", "atlas", "--api-key", "four")
    invoke("serve", "atlas", "--no-api-key", "--host", "0.0.0.0")
    keys = [options.api_keys for options in asked]
    assert keys == [("one", "two"), ("three",), ("four",), ()]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602])
def test_a_key_file_that_others_may_use_is_refused(asked, atlas, tmp_path, mode):
    file = key_file(tmp_path, "one", mode)
    said = complaint("serve", "atlas", "--api-key-file", file)
    assert f"mode {mode:04o}" in said
    assert "chmod 600" in said


@pytest.mark.parametrize("text", ["", "\n \n", "two words", "schlüssel", "x" * 600])
def test_a_file_without_a_key_that_can_be_sent_is_refused(asked, atlas, tmp_path, text):
    said = complaint("serve", "atlas", "--api-key-file", key_file(tmp_path, text))
    assert "key" in said
    assert not text.strip() or text not in said


# -- a server ------------------------------------------------------------------------------


def test_it_serves_until_ctrl_c_ends_it(atlas):
    with running("atlas", "--port", "0") as (child, url):
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            assert json.load(answer)["status"] == "ok"
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert time.monotonic() - began < 2
    assert child.returncode == 0
    assert out == ""
    assert f"curl {url}/v1/chat/completions" in err
    assert "Traceback" not in err


def test_a_browser_opens_the_page_when_it_is_there(atlas, tmp_path):
    """The browser is a script that fetches what it is told to open."""
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(
        f"#!{sys.executable}\nimport sys, urllib.request\n"
        "asked = urllib.request.Request(sys.argv[1], headers={'Accept': 'text/html'})\n"
        f"open({str(seen)!r}, 'wb').write(urllib.request.urlopen(asked).read())\n"
    )
    browser.chmod(0o700)
    environment = {**os.environ, "BROWSER": str(browser)}
    with running("atlas", "--port", "0", "--open", env=environment) as (_, url):
        assert url
        wait_for(lambda: seen.is_file() and b"</html>" in seen.read_bytes())


def test_without_a_browser_it_is_said_where_the_page_is(monkeypatch, capsys):
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    serve._open("http://127.0.0.1:1")
    assert "the page is at http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="no bash or curl")
def test_it_says_what_to_enter_and_the_example_can_be_pasted(atlas, tmp_path):
    file = key_file(tmp_path, "one\ntwo\n")
    words = ["atlas", "atlas-down", "--port", "0", "--host", "0.0.0.0", "--api-key-file", file]
    with running(*words) as (child, url):
        said = [child.stderr.readline().strip() for _ in range(8)]
        answer = subprocess.run(["bash", "-c", said[-1]], capture_output=True, text=True)
    assert said[0] == "serving atlas, atlas-down; Ctrl-C ends it"
    assert said[1] == f"to talk to them in a browser: {url}"
    assert f"OpenAI-compatible  {url}/v1" in said
    assert f"Ollama, Anthropic  {url}" in said
    assert said[5].startswith(f"other machines     http://{socket.gethostname()}:")
    assert json.loads(answer.stdout)["model"] == "atlas"
    assert "one" not in said[-1]


def test_a_port_in_use_is_one_line(atlas):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = complaint("serve", "atlas", "--port", port)
    assert f"127.0.0.1:{port}: the port is in use; take another: --port {port + 1}" in said


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_elsewhere_is_one_line(atlas, host):
    assert "cannot listen on" in complaint("serve", "atlas", "--host", host, "--no-api-key")


def test_a_key_is_asked_for_and_never_shown(atlas):
    environment = {**os.environ, "EDGE_EFT_API_KEY": "hush-hush"}
    with running("atlas", "--port", "0", "-v", env=environment) as (child, url):
        for key, status in (("hush-hush", 200), ("hush-hush-no", 401)):
            asked = urllib.request.Request(f"{url}/metrics", headers={"X-Api-Key": key})
            try:
                seen = urllib.request.urlopen(asked, timeout=5).status
            except urllib.error.HTTPError as error:
                seen = error.code
            assert seen == status
        child.terminate()
        out, err = child.communicate(timeout=10)
    assert child.returncode == 0
    assert "hush" not in out + err
    assert "Traceback" not in err


def test_what_is_odd_about_a_recipe_is_said_and_with_v_when_it_is_loaded(atlas):
    with running("atlas", "--port", "0", "--n-ctx", "9999", "-v") as (child, url):
        assert url
        child.terminate()
        err = child.communicate(timeout=10)[1].splitlines()
    assert [line for line in err if line.startswith("edge-eft: atlas: n_ctx is 9999; ")]
    assert [line for line in err if re.fullmatch(r"edge-eft: atlas is loaded, in [0-9.]+ s", line)]


def test_the_process_that_serves_has_no_native_code(atlas):
    with running("atlas", "--port", "0") as (child, url):
        assert url
        pids = [child.pid, *children(child.pid)]
        maps = "".join(read(f"/proc/{pid}/maps") for pid in pids)
    if not maps:
        pytest.skip("no /proc here")
    assert "libllama" not in maps
    assert "_multiarray_umath" not in maps


def children(pid):
    return [int(word) for word in read(f"/proc/{pid}/task/{pid}/children").split()]


def read(path):
    with contextlib.suppress(OSError), open(path) as file:
        return file.read()
    return ""
