"""What a client is told when a request is not served: a status, and one message in OpenAI's shape.

    {"error": {"message": …, "type": …, "param": …, "code": …}}

Dialects with another shape make theirs of the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from ..errors import EdgeEftError, PromptError, RequestError


class ApiError(Exception):
    """A request is refused, or has failed.

    Args:
        status: of HTTP.
        message: what was seen and what to do, in one line; the client sees it as it stands.
        kind: OpenAI's `type`; as the status says, if None.
        param: the field that it is about.
        code: a word for programs.
        headers: of the response.
        more: further fields beside the message, as `n_ctx`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def body(self) -> dict[str, Any]:
        """Return the object that OpenAI's clients expect."""
        fields = {"message": self.message, "type": self.kind, "param": self.param}
        return {"error": {**fields, "code": self.code, **self.more}}


def openai_refusal(error: ApiError) -> Response:
    """Return the answer to a request that is not served."""
    return JSONResponse(error.body(), error.status, error.headers)


def as_api_error(error: Exception) -> ApiError:
    """Return what a client is told of any error; of a defect of ours, nothing but that it is one.

    What an unexpected exception says may hold a part of somebody's prompt.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestError | PromptError):
        return ApiError(400, str(error))
    if isinstance(error, EdgeEftError):
        return ApiError(500, str(error))
    return ApiError(500, "the server failed to answer; its log says where", code="internal_error")


def shutting_down() -> ApiError:
    """Return what a client is told whose answer the end of the server cuts."""
    return ApiError(503, "the server is shutting down", code="shutting_down")


def place_of(error: BaseException) -> str:
    """Return kind and place of an exception for a log, without its words."""
    trace, place = error.__traceback__, "nowhere"
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_filename}:{trace.tb_lineno}, in {code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}"
