"""Names that a hub states, places in the cache, and what is removed from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_eft.errors import HubError, RecipeError
from edge_eft.files import hub_cache

COMMIT, DIGEST = "a" * 40, "b" * 64
HOSTILE_FILES = """
../x.gguf|..|.|/etc/x.gguf|//x.gguf|a/../../x.gguf|a/..|./x.gguf|a//x.gguf|a/|/|~/../x.gguf/..
..\\x.gguf|a\\..\\..\\x.gguf|C:x.gguf|C:/x.gguf|\\\\server\\share\\x.gguf|x.gguf:stream|a:b/x.gguf
CON|con.gguf|nul|NUL.gguf|aux.x.gguf|COM1.gguf|com¹.gguf|lpt9|a/prn/x.gguf|CONIN$|nul .gguf
x.gguf.|x.gguf |a./x.gguf|a /x.gguf|x?.gguf|x*.gguf|<x>.gguf|"x".gguf|a|b.gguf
""".replace("a|b.gguf", "").split("\n")
HOSTILE_FILES = [name for line in HOSTILE_FILES if line for name in line.split("|") if name]
HOSTILE_FILES += [
    "",
    "a|b.gguf",
    "x\0.gguf",
    "x\n.gguf",
    "x\x1b[2J.gguf",
    "x\x9b2J.gguf",
    "x\ud800.gguf",
    "n" * 252 + ".gguf",
    "ü" * 126 + ".gguf",
    "a/" * 600 + "x.gguf",
]
HOSTILE_REPOS = [
    "",
    "x",
    "a/b/c",
    "../b",
    "a/..",
    "./b",
    "/b",
    "a/",
    "a//b",
    "a\\b/c",
    "a--b/c",
    "a/b--c",
    "a..b/c",
    "a/b.git",
    "a/b.",
    "a/b\n",
    "a/b\0",
    "-a/b",
    ".a/b",
    "a b/c",
    "ä/b",
    "a/" + "b" * 97,
    "https://huggingface.co/a/b",
]
HOSTILE_HASHES = ["", "..", "../../x", "/etc/passwd", "A" * 40, "a" * 39, "a" * 41, None, 7]


def test_there_are_more_than_sixty_hostile_names():
    assert len({*HOSTILE_FILES, *HOSTILE_REPOS}) + len(HOSTILE_HASHES) > 60


@pytest.mark.parametrize("name", HOSTILE_FILES, ids=ascii)
def test_a_hostile_file_name_has_no_place(tmp_path, name):
    with pytest.raises(RecipeError, match=r"not a path within|not the path of a .gguf"):
        hub_cache.place(tmp_path, "a/b", COMMIT, name, DIGEST)


@pytest.mark.parametrize("repo", HOSTILE_REPOS, ids=ascii)
def test_a_hostile_repository_has_no_place(tmp_path, repo):
    with pytest.raises(RecipeError, match="not the name of a repository"):
        hub_cache.place(tmp_path, repo, COMMIT, "x.gguf", DIGEST)


@pytest.mark.parametrize("value", HOSTILE_HASHES, ids=ascii)
def test_a_hostile_commit_or_digest_has_no_place(tmp_path, value):
    with pytest.raises(HubError, match="is not a commit"):
        hub_cache.place(tmp_path, "a/b", value, "x.gguf", DIGEST)
    with pytest.raises(HubError, match="is not a sha256"):
        hub_cache.place(tmp_path, "a/b", COMMIT, "x.gguf", value)


@pytest.mark.parametrize(
    "name",
    ["x.gguf", "Q8_0/x-00001-of-00002.gguf", "a b.gguf", "模型.gguf", "context.gguf", "x~.gguf"],
)
def test_an_honest_name_stays_below_its_repository(tmp_path, name):
    where = hub_cache.place(tmp_path, "Some-one/x.y_z", COMMIT, name, DIGEST)
    assert where.folder == tmp_path / "models--Some-one--x.y_z"
    assert where.snapshot == where.folder / "snapshots" / COMMIT / name
    assert where.blob == where.folder / "blobs" / DIGEST


def pulled(cache, repo="a/b", commit=COMMIT, name="x.gguf", digest=DIGEST, data=b"12345"):
    """A file as a pull leaves it; returns its name."""
    where = hub_cache.place(cache, repo, commit, name, digest)
    hub_cache.prepare(where)
    where.blob.write_bytes(data)
    return hub_cache.link(where)


@pytest.mark.parametrize("part", ["blobs", "snapshots", f"snapshots/{COMMIT}"])
def test_a_link_out_of_the_repository_is_not_followed(tmp_path, part):
    outside, cache = tmp_path / "outside", tmp_path / "hub"
    outside.mkdir()
    link = cache / "models--a--b" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(HubError, match=r"a link leads out of the cache"):
        pulled(cache)
    assert not list(outside.iterdir())


def test_a_cache_that_is_itself_a_link_is_used(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "hub").symlink_to(tmp_path / "disk")
    assert pulled(tmp_path / "hub").read_bytes() == b"12345"


def test_a_link_takes_the_place_of_what_was_there(tmp_path):
    path = pulled(tmp_path)
    path.unlink()
    path.write_bytes(b"something else")
    assert pulled(tmp_path) == path
    assert path.read_bytes() == b"12345"
    assert [each.name for each in path.parent.iterdir()] == ["x.gguf"]


def test_without_links_the_file_itself_is_there(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refused)
    path = pulled(tmp_path)
    assert not path.is_symlink()
    assert path.read_bytes() == b"12345"


@pytest.mark.parametrize(
    "variables",
    [
        {"HF_HUB_CACHE": "/c/$NAME"},
        {"HUGGINGFACE_HUB_CACHE": "~/c"},
        {"HF_HOME": "/h"},
        {"XDG_CACHE_HOME": "/x"},
        {},
    ],
    ids=str,
)
def test_the_hubs_cache_is_where_huggingface_hub_has_it(variables, monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/u", "NAME": "n", **variables}.items():
        monkeypatch.setenv(name, value)
    code = "import huggingface_hub.constants as c; print(c.HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"{hub_cache.cache_directory()}\n" == theirs.stdout


def test_without_a_home_the_cache_has_no_place(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(HubError, match="HF_HOME names a place"):
        hub_cache.cache_directory({})
    assert hub_cache.cache_directory({"HF_HOME": "/h"}) == Path("/h/hub")
