"""Where the server listens, and how it runs there until it is told to stop.

Sockets are bound before anything is loaded, so that a port in use is known at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from typing import Any

import uvicorn

from ..errors import ServerError
from .guard import App
from .protocol import Limits, protocol

_SPARE_FILES = 64  # of the process, beside its connections
_GRACE = 1  # second for answers in flight, once the server stops


def listen(host: str, port: int) -> list[socket.socket]:
    """Return sockets that are bound to every address of `host`; port 0: any that is free.

    Raises ServerError if it is not an address of this machine, or the port is in use.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host):
            listener = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(listener)
            if sys.platform != "win32":  # there it would let others listen, too
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, port))
            listener.listen(128)
            port = listener.getsockname()[1]
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise ServerError(_not_bound(host, port, error)) from None
    return sockets


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """Return family and address of each that a host has; a name is looked up."""
    with contextlib.suppress(ValueError):
        version = ipaddress.ip_address(host.partition("%")[0]).version
        return [(socket.AF_INET if version == 4 else socket.AF_INET6, host)]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    addresses = dict.fromkeys((family, str(where[0])) for family, _, _, _, where in found)
    return sorted(addresses)  # IPv4 first


def _not_bound(host: str, port: int, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {host!r:.120} ({reason}); give an address of this machine: --host"
    if "in use" in reason:
        return f"cannot listen on {where}: the port is in use; take another: --port {port + 1}"
    if isinstance(error, PermissionError):
        return f"cannot listen on {where} ({reason}); take a port above 1023: --port"
    return f"cannot listen on {where} ({reason}); --host takes an address of this machine"


def url_of(host: str, sockets: list[socket.socket]) -> str:
    """Return the address that clients on this machine are given."""
    port = sockets[0].getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: App, limits: Limits | None = None) -> uvicorn.Server:
    """Return what serves `app` until SIGINT or SIGTERM, which ends it within two seconds.

    Args:
        app: an ASGI application; its lifespan surrounds all of it.
        limits: of connections; None: the defaults, of as many as the system lets us open.
    """
    limits = limits or Limits(connections=min(Limits.connections, _files() - _SPARE_FILES))
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.CRITICAL,  # the guard logs errors, and the counting requests
        access_log=False,  # paths and queries are the clients' business
        proxy_headers=False,  # anybody could send them
        server_header=False,
        timeout_keep_alive=int(limits.idle) + 1,  # ours is the one that counts
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=limits.header_bytes,
    )
    return _Server(config)


class _Server(uvicorn.Server):
    """Uvicorn's server, with handlers of signals that do not raise them again in the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not here
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.force_exit = self.should_exit  # the second time
        self.should_exit = True


def _files() -> int:
    """Return how many files this process may open."""
    try:
        import resource
    except ImportError:  # Windows counts no sockets
        return 1 << 16
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit if limit != resource.RLIM_INFINITY else 1 << 16
