"""Answers in JSON, and errors as one sentence each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pcaseg.serving.limits import sentence_of, status_of
from pcaseg.serving.protocol import json_bytes

Handler = Callable[[Request], Awaitable[Response]]

_SENTENCES = {
    404: "there is nothing at this address; see the server's documentation",
    405: "this address takes another method; see the server's documentation",
}
_AGAIN_AFTER_S = "1"


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(json_bytes(value), status, headers, media_type="application/json")


async def error_answer(_: Request, error: Exception) -> Response:
    """The answer that tells an error."""
    if isinstance(error, HTTPException):
        return json_answer({"error": _SENTENCES.get(error.status_code, error.detail)}, error.status_code, error.headers)
    status = status_of(error)
    headers = {"Retry-After": _AGAIN_AFTER_S} if status in (429, 503) else None
    return json_answer({"error": sentence_of(error)}, status, headers)


def told(handler: Handler) -> Handler:
    """A handler whose errors are answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except HTTPException:
            raise
        except Exception as error:
            return await error_answer(request, error)

    return answer
