"""A stand-in of the Hugging Face hub on loopback, for the real huggingface_hub to talk to.

Two servers with two ports, so that they are two hosts to an HTTP client: the hub, which knows
repositories and checks tokens, and the place that it sends people to for large files. Faults are
planted by rules; what was asked for is in `log`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import huggingface_hub.constants

from edge_eft.files import hub_transfer

Data = bytes | Path


@dataclass
class Asked:
    """One request: to "hub" or "store", and the bytes of file content that were sent for it."""

    host: str
    method: str
    path: str
    range: str | None
    token: str | None
    sent: int = 0


@dataclass
class Fault:
    """What happens to requests whose path and range match a regular expression, `times` times.

    `after` breaks the connection after so many bytes, `flip` changes the byte at that place of the
    file, `pause` waits before every block of 16 KiB, `stall` sends nothing more for so long after
    the first block, `status` and `headers` take the answer's place, `whole` ignores ranges.
    """

    match: str
    times: int = 1 << 30
    host: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: int | None = None
    flip: int | None = None
    pause: float = 0.0
    stall: float = 0.0
    whole: bool = False


@dataclass
class Repo:
    """A repository: its files of each commit, and how it is guarded."""

    commits: dict[str, dict[str, Data]] = field(default_factory=dict)
    head: str = ""
    licence: str = "apache-2.0"
    gated: bool = False
    private: bool = False
    tokens: set[str] = field(default_factory=set)  # that have access where it is gated or private
    lie: Callable[[dict[str, Any]], Any] = lambda info: info


def _size(data: Data) -> int:
    return data.stat().st_size if isinstance(data, Path) else len(data)


def _sha256(data: Data) -> str:
    if isinstance(data, Path):
        with open(data, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    """What git calls a small file, which is its digest outside of the large storage."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients are killed in the middle of a request here."""


class HubServer:
    """The hub and its store; `with HubServer() as hub` runs both."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.log: list[Asked] = []
        self.faults: list[Fault] = []
        self.small: set[str] = set()  # names of files that are not in the large storage
        self._hashes: dict[Data, str] = {}
        self._servers = {name: self._server(name) for name in ("hub", "store")}

    def _server(self, name: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "name": name})
        return _Server(("127.0.0.1", 0), handler)

    def __enter__(self) -> HubServer:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._servers:
            self.stop(name)

    def stop(self, name: str) -> None:
        """Let a server be gone: nobody listens any more."""
        self._servers[name].shutdown()
        self._servers[name].server_close()

    def address(self, name: str = "hub") -> str:
        return f"http://127.0.0.1:{self._servers[name].server_address[1]}"

    def add(self, repo: str, files: dict[str, Data], **how: Any) -> Repo:
        """Add a commit that changes `files` of a repository; it becomes the newest."""
        found = self.repos.setdefault(repo, Repo())
        for key, value in how.items():
            setattr(found, key, value)
        tree = {**found.commits.get(found.head, {}), **files}
        listed = sorted((name, self.sha256(data)) for name, data in tree.items())
        found.head = hashlib.sha1(repr((repo, listed)).encode()).hexdigest()
        found.commits[found.head] = tree
        return found

    def sha256(self, data: Data) -> str:
        if data not in self._hashes:
            self._hashes[data] = _sha256(data)
        return self._hashes[data]

    def fault(self, match: str, **how: Any) -> Fault:
        """Plant a fault for requests whose "PATH RANGE" has `match` in it."""
        self.faults.append(Fault(match, **how))
        return self.faults[-1]

    def sent(self, match: str = "") -> int:
        """How many bytes of files were sent."""
        return sum(asked.sent for asked in self.log if match in asked.path)

    def info(self, name: str, repo: Repo, commit: str) -> Any:
        """What the hub says of a repository."""
        siblings = []
        for path, data in repo.commits[commit].items():
            each = {"rfilename": path, "size": _size(data), "blobId": "0" * 40}
            if path in self.small:
                assert isinstance(data, bytes)
                each["blobId"] = git_hash(data)
            else:
                lfs = {"sha256": self.sha256(data), "size": _size(data), "pointerSize": 134}
                each["lfs"] = lfs
            siblings.append(each)
        return repo.lie(
            {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": repo.private,
                "gated": "auto" if repo.gated else False,
                "disabled": False,
                "tags": ["gguf"],
                "cardData": {"license": repo.licence},
                "siblings": siblings,
            }
        )


def use(server: HubServer, monkeypatch: Any, home: Path) -> Path:
    """Point huggingface_hub in this process, which reads its environment once, at the stand-in.

    Returns the cache, which is in `home`.
    """
    constants = huggingface_hub.constants
    template = server.address() + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.address(),
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_DOWNLOAD_TIMEOUT": 2,
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(home / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hub_transfer, "_WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("EDGE_EFT_HOME", str(home / "own"))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    huggingface_hub.close_session()
    return home / "hub"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer
    name: str

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        self.asked = Asked(self.name, self.command, path, self.headers.get("range"), token)
        self.hub.log.append(self.asked)
        self.fault = self._planted(path)
        if self.fault and self.fault.status:
            # Closed, because the length in the headers may be a lie; said, lest the client asks
            # again on a connection that is about to go.
            about = {"Connection": "close", **self.fault.headers}
            self._send(self.fault.status, self.fault.body, about)
        elif self.name == "store":
            self._stored(path)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups())
        else:
            self._send(404, b'{"error":"Not Found"}')

    def _planted(self, path: str) -> Fault | None:
        for fault in self.hub.faults:
            asked = f"{path} {self.asked.range}"
            if re.search(fault.match, asked) and fault.host in ("", self.name) and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _refused(self, repo: Repo | None, *, content: bool) -> bool:
        """Answer as the hub does to who may not see a repository, or not its files."""
        known = self.asked.token in repo.tokens if repo else False
        if repo is None or (repo.private and not known):
            self._error(401 if self.asked.token is None else 404, "RepoNotFound", "Not found.")
        elif repo.gated and content and not known:
            why = "Access to this model is restricted."
            self._error(401 if self.asked.token is None else 403, "GatedRepo", why)
        else:
            return False
        return True

    def _info(self, name: str, revision: str | None) -> None:
        repo = self.hub.repos.get(name)
        if self._refused(repo, content=False):
            return
        assert repo
        commit = repo.head if revision in (None, "main") else revision
        if commit not in repo.commits:
            self._error(404, "RevisionNotFound", "Invalid rev id")
            return
        content = self.hub.info(name, repo, commit)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repo = self.hub.repos.get(name)
        if self._refused(repo, content=True):
            return
        assert repo
        commit = repo.head if revision == "main" else revision
        tree = repo.commits.get(commit)
        if tree is None:
            self._error(404, "RevisionNotFound", "Invalid rev id")
        elif file not in tree:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        elif file in self.hub.small:
            data = tree[file]
            assert isinstance(data, bytes)
            about = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(data)}"'}
            self._content(data, about)
        else:
            sha256 = self.hub.sha256(tree[file])
            where = f"{self.hub.address('store')}/store/{name}/{commit}/{file}"
            about = {
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(_size(tree[file])),
                "Location": where,
            }
            self._send(302, b"", about)

    def _stored(self, path: str) -> None:
        match = re.fullmatch(r"/store/([^/]+/[^/]+)/([^/]+)/(.+)", path)
        assert match
        data = self.hub.repos[match[1]].commits[match[2]][match[3]]
        self._content(data, {"ETag": f'"{self.hub.sha256(data)}"', "Accept-Ranges": "bytes"})

    def _content(self, data: Data, about: dict[str, str]) -> None:
        fault = self.fault or Fault("")
        size, start, stop = _size(data), 0, _size(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.asked.range or "")
        status = 200
        if asked and not fault.whole:
            start, stop = int(asked[1]), min(int(asked[2] or size) + 1, size)
            if start >= size:
                self._send(416, b"", {"Content-Range": f"bytes */{size}"})
                return
            status = 206
            about = about | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        self.send_response(status)
        for key, value in (about | {"Content-Length": str(stop - start)}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for block in self._blocks(data, start, stop, fault):
            self.wfile.write(block)
            self.asked.sent += len(block)
        if fault.after is not None:
            self.close_connection = True

    def _blocks(self, data: Data, start: int, stop: int, fault: Fault) -> Iterator[bytes]:
        if fault.after is not None:
            stop = min(stop, start + fault.after)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(data, "rb")) if isinstance(data, Path) else None
            for at in range(start, stop, 1 << 14):
                n = min(1 << 14, stop - at)
                if file:
                    file.seek(at)
                block = bytearray(file.read(n) if file else data[at : at + n])  # type: ignore[index]
                if fault.flip is not None and at <= fault.flip < at + n:
                    block[fault.flip - at] ^= 0xFF
                time.sleep(fault.pause)
                yield bytes(block)
                if fault.stall:
                    time.sleep(fault.stall)

    def _error(
        self, status: int, code: str, words: str, more: dict[str, str] | None = None
    ) -> None:
        about = {"X-Error-Code": code, "X-Error-Message": words, **(more or {})}
        self._send(status, json.dumps({"error": words}).encode(), about)

    def _send(self, status: int, body: bytes, about: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(about or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
