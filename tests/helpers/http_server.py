"""A live server on a free port, in a thread, and raw connections to it."""

import asyncio
import contextlib
import json
import re
import socket
import threading
import time

from edge_eft.server.listening import listen, make_server

JSON = {"Content-Type": "application/json"}


class Live:
    """A server that runs. `connections` are those that it holds."""

    def __init__(self, server, port):
        self.server, self.port = server, port

    @property
    def connections(self):
        return len(self.server.server_state.connections)

    def connect(self, data=b"", receive_buffer=None):
        """A socket, on which `data` was sent."""
        return connect(self.port, data, receive_buffer)

    def ask(self, path="/", method="GET", body=None, **headers):
        """Status, headers and body of an answer, read to its end."""
        with self.connect(request(path, method, body, **headers)) as client:
            return answer(everything(client))


def connect(port, data=b"", receive_buffer=None):
    """A socket to a port of this machine, on which `data` was sent."""
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    client.sendall(data)
    return client


@contextlib.contextmanager
def serving(app, limits=None, port=0):
    """A live server of an ASGI application; port 0 is any."""
    sockets = listen("127.0.0.1", port)
    port = sockets[0].getsockname()[1]
    server = make_server(app, limits)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets)))
    thread.start()
    try:
        assert until(lambda: server.started)
        yield Live(server, port)
    finally:
        server.should_exit = True
        thread.join(10)


def request(path="/", method="GET", body=None, close=True, **headers):
    """The bytes of a request. Headers are given as Content_Type; None leaves Host out."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"Host": "localhost", **named}
    if body is not None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"Content-Length": str(len(body)), **named}
    if close:
        named["Connection"] = "close"
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def everything(client):
    """What comes until the server closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65536):
            data += chunk
    return data


def answer(data):
    """Status, headers and body of the bytes of an answer; chunks are joined."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n(?=[0-9a-f]+\r\n|$)", body, re.DOTALL))
    return int(first.split()[1]), headers, body


def until(condition, seconds=5.0):
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
