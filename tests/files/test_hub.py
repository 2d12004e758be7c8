"""What the hub has, and its files in the cache: against a stand-in on loopback."""

import hashlib
import os
import subprocess
import sys

import huggingface_hub
import huggingface_hub.constants
import pytest
from helpers.hub_server import HubServer, use

from edge_eft.errors import HubError
from edge_eft.files import hub, hub_transfer

REPO, FILE = "someone/model-GGUF", "model-Q8_0.gguf"
DATA = hashlib.sha256(b"a file").digest() * 10_000  # 320,000 bytes


@pytest.fixture
def server():
    with HubServer() as server:
        yield server


@pytest.fixture
def at(server, tmp_path, monkeypatch):
    """A cache, and a repository in the stand-in."""
    cache = use(server, monkeypatch, tmp_path)
    server.add(REPO, {FILE: DATA, "README.md": b"about"})
    return cache


def get(file=FILE, repo=REPO, revision=None):
    """Fetch a file; returns its path and the lines that were told."""
    found = hub.look_up(repo, revision)
    told, shown = [], []
    path = hub_transfer.fetch(found, found.files[file], shown.append, told.append)
    assert sum(shown) == found.files[file].size
    return path, told


def test_a_repository_is_looked_up(server, at):
    found = hub.look_up(REPO)
    assert found.commit == server.repos[REPO].head
    assert found.files.keys() == {FILE}
    assert found.files[FILE].sha256 == hashlib.sha256(DATA).hexdigest()
    assert (found.licence, found.gated) == ("apache-2.0", False)


def test_a_fetched_file_is_where_huggingface_hub_looks_for_it(server, at):
    path, told = get()
    assert path.read_bytes() == DATA
    assert not told
    commit = server.repos[REPO].head
    assert huggingface_hub.try_to_load_from_cache(REPO, FILE, revision=commit) == str(path)
    scanned = huggingface_hub.scan_cache_dir(at)
    assert not scanned.warnings
    assert scanned.size_on_disk == len(DATA)
    log = len(server.log)
    assert huggingface_hub.hf_hub_download(REPO, FILE, revision=commit) == str(path)
    assert len(server.log) == log


def test_a_token_goes_to_the_hub_and_not_to_where_it_sends_us(server, at, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.add(REPO, {}, gated=True, tokens={"hf_secret"})
    get()
    tokens = {asked.host: asked.token for asked in server.log}
    assert tokens == {"hub": "hf_secret", "store": None}


def test_what_was_broken_off_goes_on_where_it_stopped(server, at):
    server.fault(FILE, after=100_000, times=3, host="store")
    _, told = get()
    assert server.sent() == len(DATA)
    assert len(told) == 3
    assert "trying again" in told[0]


def test_a_later_try_fetches_only_what_is_missing(server, at):
    fault = server.fault(FILE, after=50_000, times=1, host="store")
    gone = server.fault(FILE, status=503, host="store")
    with pytest.raises(HubError, match=r"503.*50 kB of 320 kB came, and the next pull goes on"):
        get()
    assert (fault.times, server.sent()) == (0, 50_000)
    (partial,) = at.rglob("*.incomplete")
    assert partial.stat().st_size == 50_000
    assert not [path for path in at.rglob("*") if path.name.endswith(".gguf")]
    gone.times = 0
    path, _ = get()
    assert path.read_bytes() == DATA
    assert server.sent() == len(DATA)
    assert not partial.exists()


def test_a_store_that_ignores_ranges_is_listened_to_from_the_place_that_is_missing(server, at):
    server.fault(FILE, after=100_000, times=1, host="store")
    server.fault(FILE, whole=True, host="store")
    path, _ = get()
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("where", [0, 123_456, len(DATA) - 1])
def test_a_flipped_byte_is_seen_and_nothing_of_it_is_kept(server, at, where):
    fault = server.fault(FILE, flip=where, host="store")
    with pytest.raises(HubError, match=r"what came is not what the hub states.*fetches it anew"):
        get()
    assert not [path for path in at.rglob("*") if path.is_file() and path.suffix != ".lock"]
    fault.times = 0
    assert get()[0].read_bytes() == DATA


def test_a_damaged_file_in_the_cache_is_fetched_again(server, at):
    path, _ = get()
    blob = path.resolve()
    blob.write_bytes(DATA[:-1] + b"?")
    again, told = get()
    assert again == path
    assert path.read_bytes() == DATA
    assert "damaged" in told[0]


def test_a_small_file_is_compared_with_gits_hash(server, at):
    server.small.add("small.gguf")
    server.add(REPO, {"small.gguf": b"GGUF and so on"})
    assert get("small.gguf")[0].read_bytes() == b"GGUF and so on"
    server.add(REPO, {"small.gguf": b"GGUF and more"})
    server.fault("small.gguf", flip=2)
    with pytest.raises(HubError, match="not what the hub states"):
        get("small.gguf")


def test_a_file_that_another_size_is_sent_of_is_refused(server, at):
    def shorter(info):
        for each in info["siblings"]:
            each["lfs"]["size"] -= 1
        return info

    server.repos[REPO].lie = shorter
    with pytest.raises(HubError, match=r"sends a file of 320,000 bytes and lists 319,999"):
        get()


def test_what_stalls_is_given_up_and_kept(server, at, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    server.fault(FILE, stall=1.0, host="store")
    monkeypatch.setattr(hub_transfer, "_WAITS", ())
    with pytest.raises(HubError, match=r"ReadTimeout.*goes on"):
        get()
    assert next(at.rglob("*.incomplete")).stat().st_size > 0


def test_a_busy_hub_is_asked_again_when_it_says(server, at):
    server.fault(FILE, status=429, headers={"Retry-After": "1"}, times=1, host="hub")
    path, told = get()
    assert path.read_bytes() == DATA
    assert told == [
        f"{REPO}/{FILE}: {server.address()} has too many requests (429), and asks to wait 1 s; "
        "trying again in 1 s"
    ]


REFUSALS = {
    "no such repository": (
        {"status": 401, "headers": {"X-Error-Code": "RepoNotFound"}},
        "is not on",
    ),
    "a token that is no good": ({"status": 401}, r"refuses access \(401\).*hf auth login"),
    "forbidden": ({"status": 403}, r"refuses access \(403\)"),
    "too many requests": (
        {"status": 429, "headers": {"Retry-After": "3600"}},
        r"too many requests \(429\), and asks to wait 3600 s",
    ),
    "a wait without end": (
        {"status": 429, "headers": {"Retry-After": "9" * 999}},
        "try again later",
    ),
    "trouble": ({"status": 500}, r"trouble of its own \(500\)"),
    "a teapot": ({"status": 418}, "HTTP status 418"),
    "no JSON": ({"status": 200, "body": b"<html>log in, please"}, "not the hub's"),
    "another JSON": ({"status": 200, "body": b'["no"]'}, "not the hub's"),
    "deep JSON": ({"status": 200, "body": b"[" * 100_000}, "not the hub's"),
    "no siblings' names": (
        {"status": 200, "body": b'{"id":"a/b","siblings":[{}]}'},
        "not the hub's",
    ),
    "a redirect in a circle": (
        {"status": 302, "headers": {"Location": "/api/models/someone/model-GGUF"}},
        "cannot be reached",
    ),
    "a redirect to a file": (
        {"status": 302, "headers": {"Location": "file:///etc/passwd"}},
        "cannot be reached",
    ),
    "half an answer": (
        {"status": 200, "body": b"{", "headers": {"Content-Length": "9"}},
        "cannot be reached",
    ),
}


def test_huggingface_hub_says_nothing_itself(server, at):
    """It warns of metadata that it does not like, whatever an importer did to its logger before."""
    words = "from edge_eft.files import hub; hub.look_up('someone/a')"
    server.add("someone/a", {}).lie = lambda info: (
        info | {"cardData": {"license": "mit", "model-index": [{"name": "x"}]}}
    )
    environment = {**os.environ, "HF_ENDPOINT": server.address()}
    child = subprocess.run(
        [sys.executable, "-c", words], env=environment, capture_output=True, check=True, text=True
    )
    assert child.stderr == ""


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_line(server, at, case):
    fault, words = REFUSALS[case]
    server.fault("/api/models", **fault)
    with pytest.raises(HubError, match=words) as seen:
        hub.look_up(REPO)
    assert "\n" not in str(seen.value)
    assert len(str(seen.value)) < 500


def test_a_hub_that_is_gone_is_one_line(server, at):
    server.stop("hub")
    with pytest.raises(hub.UnreachableError, match=r"cannot be reached.*check the network"):
        hub.look_up(REPO)
    well, words = hub.reachable()
    assert not well
    assert server.address() in words


def test_a_hub_that_is_there_says_so_without_a_token(server, at, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert hub.reachable()[0]
    assert [(asked.method, asked.token) for asked in server.log] == [("HEAD", None)]


def test_a_gated_repository_is_explained(server, at, monkeypatch):
    server.add(REPO, {}, gated=True)
    page = f"{server.address()}/{REPO}"
    with pytest.raises(HubError, match=f"gated: accept its licence on {page} .*hf auth login"):
        get()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError, match=f"your token has no access yet: accept .*{page}"):
        get()


def test_offline_nothing_is_asked(server, at, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(hub.UnreachableError, match="HF_HUB_OFFLINE is set"):
        hub.look_up(REPO)
    assert not hub.reachable()[0]
    assert not server.log


def test_a_header_costs_its_own_size_and_is_fetched_once(server, at):
    server.add(REPO, {"large.gguf": bytes(8 << 20)})
    headers = hub_transfer.Headers(hub.look_up(REPO))
    for _ in range(2):
        with headers.open("large.gguf") as file:
            assert file.seek(0, os.SEEK_END) == 8 << 20
            file.seek(0)
            assert file.read(300_000) == bytes(300_000)
            file.seek(600_000)
            assert len(file.read(1)) == 1
    assert server.sent() == headers.fetched == 1 << 20
    with pytest.raises(FileNotFoundError):
        headers.open("none.gguf")
    with headers.open("large.gguf") as file:
        file.seek(9 << 20)
        assert file.read() == b""


def test_what_an_earlier_pull_has_begun_is_not_fetched_for_a_look(server, at):
    server.add(REPO, {"large.gguf": bytes(8 << 20)})
    server.fault("large.gguf", after=1 << 20, times=1, host="store")
    gone = server.fault("large.gguf", status=418, host="store")
    with pytest.raises(HubError):
        get("large.gguf")
    gone.times = 0
    before = server.sent()
    headers = hub_transfer.Headers(hub.look_up(REPO), partials=True)
    with headers.open("large.gguf") as file:
        assert file.read(300_000) == bytes(300_000)
    assert server.sent() == before
    with headers.open("large.gguf") as file:
        assert file.read(2 << 20) == bytes(2 << 20)
    assert server.sent() == before + headers.fetched


def test_a_revision_is_kept_when_the_branch_moves_on(server, at):
    first = server.repos[REPO].head
    get()
    server.add(REPO, {FILE: DATA + b"new"})
    found = hub.look_up(REPO, first)
    assert (found.commit, found.files[FILE].size) == (first, len(DATA))
    assert hub.look_up(REPO).files[FILE].size == len(DATA) + 3


def test_a_revision_that_is_gone_is_one_line(server, at):
    with pytest.raises(HubError, match="--update takes its newest"):
        hub.look_up(REPO, "0" * 40)


def test_what_cannot_be_written_is_kept_and_said(server, at):
    get()
    found = hub.look_up(REPO)
    at.rename(at.with_name("gone"))
    at.write_text("a file where the cache should be")
    with pytest.raises(HubError, match=r"cannot be made .*HF_HOME names another place"):
        hub_transfer.fetch(found, found.files[FILE], lambda n: None, print)


def test_space_is_asked_for_before(server, at):
    hub_transfer.check_space(1)
    with pytest.raises(HubError, match=r"GB are still to come, and .* GB free; make room"):
        hub_transfer.check_space(1 << 60)


def test_a_token_that_is_none_is_not_cited(server, at, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secrét")
    with pytest.raises(HubError, match="set HF_TOKEN again") as seen:
        hub.look_up(REPO)
    assert "hf_se" not in str(seen.value)


def test_a_file_that_another_program_is_fetching_is_waited_for(server, at):
    found = hub.look_up(REPO)
    digest = found.files[FILE].digest
    lock = at / ".locks" / "models--someone--model-GGUF" / f"{digest}.lock"
    lock.parent.mkdir(parents=True)
    held = huggingface_hub.utils.WeakFileLock(lock)
    held.__enter__()
    told = []

    def heard(line):
        told.append(line)
        held.__exit__(None, None, None)

    hub_transfer.fetch(found, found.files[FILE], lambda n: None, heard)
    assert told == [f"{FILE}: another program is fetching it; waiting"]


def test_two_repositories_with_one_file_are_two_places(server, at):
    server.add("else/where", {FILE: DATA})
    paths = {get()[0], get(repo="else/where")[0]}
    assert len(paths) == len({path.resolve() for path in paths}) == 2


def test_a_server_that_dies_in_mid_file_is_one_line_and_what_came_stays(server, at):
    found = hub.look_up(REPO)
    server.fault(FILE, after=50_000, host="store", times=1)
    told = []

    def heard(line):
        if not told:
            server.stop("store")
        told.append(line)

    with pytest.raises(HubError, match=r"cannot be reached \(ConnectError.*pull goes on") as seen:
        hub_transfer.fetch(found, found.files[FILE], lambda n: None, heard)
    assert "\n" not in str(seen.value)
    assert len(told) == 3
    assert next(at.rglob("*.incomplete")).stat().st_size == 50_000


def test_a_file_that_went_away_is_one_line(server, at):
    found = hub.look_up(REPO)
    del server.repos[REPO].commits[found.commit][FILE]
    with pytest.raises(HubError, match=f"{REPO}/{FILE} is not there any more"):
        hub_transfer.fetch(found, found.files[FILE], lambda n: None, print)
