"""finding: a stranger's text loses what names a person, a host or a directory."""

import platform

import pytest

from edge_eft.cli.finding import foreign


@pytest.fixture(autouse=True)
def anna(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna smith")
    monkeypatch.setenv("USER", "annasmith")
    monkeypatch.setattr(platform, "node", lambda: "annas-laptop.local")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot load '/opt/annasmith/lib/libllama.so': no such file", "cannot load 'libllama.so'"),
        ("in /home/anna smith/models/b.gguf", "in b.gguf"),
        ("HOME is /home/anna smith", "HOME is ~"),
        ("at annasmith@annas-laptop: 12 tokens/s", "at USER@HOST: 12 tokens/s"),
        ("on annas-laptop.local, AnnaSmith", "on HOST, USER"),
        (r"C:\Users\annasmith\x.dll is missing", "x.dll is missing"),
        ("/data/annasmith", "USER"),
        ("and/or 3 GB/s, a/b", "and/or 3 GB/s, a/b"),
        ("https://huggingface.co/api answers", "https://huggingface.co/api answers"),
        ("file:///opt/annasmith/x.gguf", "file://x.gguf"),
        ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
    ],
)
def test_paths_users_and_hosts_are_taken_out(text, shown):
    assert foreign(text).startswith(shown)
    assert "nnasmith" not in foreign(text)
