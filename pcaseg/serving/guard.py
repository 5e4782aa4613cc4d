"""The guard before every request: who may ask, and what each answer says of itself."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pcaseg.serving.answers import json_answer

_OPEN_TO_ALL = ("/v2/health/", "/static/", "/samples/")
"""Beside the page itself: health is for what starts and stops servers, and these hold nothing of anybody."""

_POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob: data:"),
        *("media-src 'self' blob:", "connect-src 'self'", "base-uri 'none'", "form-action 'none'"),
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets requests through that have the token, where one is asked, and come to a name of this server.

    A server on the loopback answers to the loopback's names alone: a page of another site that has its own name lead
    here gets nothing.
    """

    def __init__(self, app: ASGIApp, *, host: str, token: str | None, draining: Callable[[], bool]) -> None:
        self._app, self._token, self._draining = app, token, draining
        self._loopback = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if self._draining():
                    headers["Connection"] = "close"
            await send(message)

        refused = self._refusal(scope["path"], Headers(scope=scope))
        if refused is not None:
            status, sentence = refused
            extra = {"WWW-Authenticate": "Bearer"} if status == 401 else None
            await json_answer({"error": sentence}, status, extra)(scope, receive, send_on)
        else:
            await self._app(scope, receive, send_on)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        if self._loopback and not is_loopback(_without_port(headers.get("host", ""))):
            return 403, "this server answers to localhost alone; start it with --host to serve another name"
        if path != "/" and _of_another_site(headers):
            return 403, "a page of another site may not ask this server; open the server's own"
        if self._token is None or path == "/" or path.startswith(_OPEN_TO_ALL):
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self._token.encode())
        if kind.lower() == "bearer" and same:
            return None
        return 401, "this server asks for its token; send it as `Authorization: Bearer TOKEN`"


def _of_another_site(headers: Headers) -> bool:
    """True for what a browser sends for a page of another site; without TLS some name its origin alone."""
    said, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if said is None and origin is not None:
        return origin.partition("://")[2] != headers.get("host")
    return said == "cross-site"


def is_loopback(host: str) -> bool:
    """True for the names and addresses of the loopback."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
