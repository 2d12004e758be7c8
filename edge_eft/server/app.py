"""The application: what is served at which path, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import EdgeEftError, ServerError
from . import anthropic, llama_routes, ollama, openai_responses, openai_routes, page
from .answers import Answering
from .api_error import ApiError, as_api_error, openai_refusal
from .body import ClientGoneError
from .engine import Engine
from .guard import App, Guard
from .listening import listen, make_server, url_of
from .metrics import CONTENT_TYPE, Counting, Metrics
from .openapi import document, error_shape
from .options import ServeOptions

OPEN_PATHS = ("/", "/health", "/v1/health", page.BELOW)  # without a key
_REFUSALS = {
    "Error": openai_refusal,
    "MessageError": anthropic.refused,
    "OllamaError": ollama.refused,
}


def create_app(
    options: ServeOptions, loaded: Callable[[Exception | None], object] = lambda _: None
) -> App:
    """Return the ASGI application: the guard, the counting, the routes.

    Args:
        loaded: called when the first recipe is loaded, or with why it cannot be.
    """
    engine = Engine(
        {recipe.name: recipe for recipe in options.recipes},
        options.load_options,
        queue=options.queue,
        keep_alive=options.keep_alive,
        max_deaths=options.max_deaths,
    )
    metrics = Metrics(lambda: _gauges(engine))
    answering = Answering(engine, metrics)

    async def health(request: Request) -> Response:
        return _health(engine)

    async def show_metrics(request: Request) -> Response:
        return PlainTextResponse(metrics.render(), media_type=CONTENT_TYPE)

    async def show_document(request: Request) -> Response:
        routes = request.app.routes
        has_keys = bool(options.api_keys)
        return JSONResponse(document(routes, OPEN_PATHS, has_keys=has_keys))

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        first = asyncio.ensure_future(_load_first(engine, loaded))
        yield
        first.cancel()
        await engine.stop()

    app = Starlette(
        routes=[
            *page.routes(),
            Route("/health", health),
            Route("/v1/health", health),
            Route("/metrics", show_metrics),
            Route("/openapi.json", show_document),
            *openai_routes.routes(engine, answering),
            *openai_responses.routes(engine, answering),
            *anthropic.routes(engine, answering),
            *llama_routes.routes(engine, answering),
            *ollama.routes(engine, answering),
        ],
        exception_handlers={
            **dict.fromkeys((ApiError, EdgeEftError, Exception), refuse),
            HTTPException: not_routed,
            ClientGoneError: nobody_listens,
        },
        lifespan=lifespan,
    )
    guarded = Guard(
        app,
        hosts=(options.host, *options.hosts),
        origins=options.origins,
        keys=options.api_keys,
        open_paths=OPEN_PATHS,
        refused=_refusal,
    )
    return Counting(guarded, metrics, app.routes)


async def _load_first(engine: Engine, loaded: Callable[[Exception | None], object]) -> None:
    try:
        await engine.start()
    except ApiError as error:
        loaded(error)
    else:
        loaded(None)


def _health(engine: Engine) -> Response:
    """Answer as llama-server does: 200 if requests are taken, 503 with the reason if not."""
    status = engine.status
    loading = {"progress": engine.progress} if engine.progress else {}
    if status in ("ok", "idle", "restarting"):
        about = {"status": status, "deaths": engine.n_deaths, "memory": engine.memory}
        died = {"last_death": engine.last_words} if engine.last_words else {}
        return JSONResponse({**about, **died, **loading})
    message = "the model is being loaded" if status == "loading" else engine.why_down()
    error = ApiError(503, message, kind="unavailable_error", code=status)
    return JSONResponse({"status": status, **error.body(), **loading}, 503, {"Retry-After": "1"})


def _gauges(engine: Engine) -> Mapping[str, float]:
    counts = [len(engine.replies(name)) for name in engine.names]
    return {
        "requests_active": sum(min(n, engine.n_slots) for n in counts),
        "requests_queued": sum(max(0, n - engine.n_slots) for n in counts),
        "models_loaded": sum(map(engine.is_loaded, engine.names)),
        "engine_deaths_total": engine.n_deaths,
        "engine_resident_memory_bytes": engine.memory,
    }


def _refusal(path: str, error: ApiError) -> Response:
    """Return an error in the shape that clients of a path expect."""
    return _REFUSALS[error_shape(path)](error)


async def refuse(request: Request, error: Exception) -> Response:
    """Answer what a route refuses, or fails at."""
    return _refusal(request.url.path, as_api_error(error))


async def nobody_listens(request: Request, error: Exception) -> Response:
    """Answer a client that has gone, for the metrics alone: as nginx counts it, nobody's fault."""
    return Response(status_code=499)


async def not_routed(request: Request, error: Exception) -> Response:
    """Answer a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}"
    taken = (error.headers or {}).get("Allow", "")
    seen = {
        404: f"there is nothing at {what:.200}",
        405: f"{request.url.path:.200} takes {taken}, not {request.method:.20}",
    }
    told = ApiError(
        error.status_code,
        seen.get(error.status_code, error.detail),
        code={404: "not_found", 405: "method_not_allowed"}.get(error.status_code),
        headers=dict(error.headers or {}),
    )
    return await refuse(request, told)


def serve(options: ServeOptions, ready: Callable[[str], object]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        ready: called with the address when the first recipe is loaded.

    Raises:
        ServerError: the address cannot be had (nothing is loaded before), or the first recipe.
    """
    sockets = listen(options.host, options.port)
    url = url_of(options.host, sockets)
    failed: list[Exception] = []

    def loaded(error: Exception | None) -> None:
        if error is None:
            ready(url)
        else:
            failed.append(error)
            server.should_exit = True

    server = make_server(create_app(options, loaded))
    asyncio.run(server.serve(sockets))
    if failed:
        raise ServerError(str(failed[0]))
