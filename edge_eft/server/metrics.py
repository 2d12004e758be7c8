"""What happened since the start, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from starlette.routing import BaseRoute, Match

from .body import Message, Receive
from .guard import App, Scope, Send

log = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# name → kind, what it is
_SERIES = {
    "requests_total": ("counter", "Requests by route and status."),
    "prompt_tokens_total": ("counter", "Tokens of prompts."),
    "cached_tokens_total": ("counter", "Tokens of prompts that were found in the cache."),
    "predicted_tokens_total": ("counter", "Tokens of replies."),
    "prompt_seconds_total": ("counter", "Seconds that prompts took."),
    "predicted_seconds_total": ("counter", "Seconds that replies took."),
    "engine_deaths_total": ("counter", "Times that the engine's process died."),
    "requests_active": ("gauge", "Requests that are being decoded."),
    "requests_queued": ("gauge", "Requests that wait for a slot."),
    "models_loaded": ("gauge", "Models that are in memory."),
    "engine_resident_memory_bytes": ("gauge", "Memory of the engine's process, files included."),
}


class Metrics:
    """Counters, added to by whoever knows; and gauges, asked for when they are read.

    Args:
        gauges: returns name → value, of names in `_SERIES`.
    """

    def __init__(self, gauges: Callable[[], Mapping[str, float]] = dict) -> None:
        self._gauges = gauges
        self._totals: Counter[str] = Counter()
        self._requests: Counter[tuple[str, int]] = Counter()

    def add(self, name: str, amount: float) -> None:
        """Add to the counter `name`, which is one of `_SERIES`."""
        self._totals[name] += amount  # type: ignore[assignment]  # seconds are counted, too

    def count(self, route: str, status: int) -> None:
        """Count a request; `route` is one of a known few."""
        self._requests[route, status] += 1

    def render(self) -> str:
        """Return all of it as text."""
        gauges = self._gauges()
        lines = []
        for name, (kind, about) in _SERIES.items():
            full = f"edge_eft_{name}"
            lines += [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]
            if name == "requests_total":
                lines += [
                    f'{full}{{route="{route}",status="{status}"}} {n}'
                    for (route, status), n in sorted(self._requests.items())
                ]
            else:
                lines.append(f"{full} {gauges.get(name, self._totals[name]):.10g}")
        return "\n".join(lines) + "\n"


class Counting:
    """Counts the responses of an application by the path of their route (ASGI middleware).

    A path of no route is "other": strangers do not choose the labels.
    """

    def __init__(self, app: App, metrics: Metrics, routes: Sequence[BaseRoute]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, count it when its response begins, and log it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, status, begun = self._path_of(scope), 0, time.perf_counter()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.count(path, status)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            # By its route: what else is in a path, or after it, is the client's business.
            seconds = time.perf_counter() - begun
            log.info("%.20s %s: %s in %.2f s", scope["method"], path, status or "gone", seconds)

    def _path_of(self, scope: Scope) -> str:
        """Return the path of a request's route: a pattern, where the route has one."""
        matching = (route for route in self._routes if route.matches(scope)[0] != Match.NONE)
        return str(getattr(next(matching, None), "path", "other"))
