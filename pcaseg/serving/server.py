"""Serving: an application on a socket, until it is told to stop and has answered whoever asked."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pcaseg.errors import PcasegError
from pcaseg.serving.answers import error_answer, told
from pcaseg.serving.guard import Guard
from pcaseg.serving.inference import Inference
from pcaseg.serving.limits import Limits
from pcaseg.serving.metrics import CONTENT_TYPE
from pcaseg.serving.page import Page
from pcaseg.serving.service import Offer, Service

DRAIN_SECONDS = 3.0

_LEFT_OPEN_S = 60
_BACKLOG = 1024


def make_app(
    service: Service, *, host: str = "127.0.0.1", token: str | None = None, failed: Callable[[], object] = lambda: None
) -> Starlette:
    """The application: protocol, page and metrics.

    Args:
        service: opened when the application starts, beside its first answers, and closed when it ends.
        host: that it is bound to; on the loopback it answers to the loopback's names alone.
        token: that requests must bring; None for none.
        failed: called where the bundle cannot be opened; `service.failure` says why.
    """

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        async def open_() -> None:
            await service.start()
            if service.failure is not None:
                failed()

        opening = asyncio.create_task(open_())
        yield
        await opening
        await service.close()

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return Starlette(
        routes=[*Inference(service).routes(), *Page(service).routes(), Route("/metrics", told(metrics))],
        middleware=[Middleware(Guard, host=host, token=token, draining=lambda: service.phase == "draining")],
        exception_handlers={HTTPException: error_answer},
        lifespan=life,
    )


class Server(uvicorn.Server):
    """An HTTP server on one offer.

    At SIGTERM it says that it is not ready, answers for `drain_seconds` more, then takes no new connection, answers
    all that was asked, and ends. At SIGINT it does so at once, at a second one without answering.
    """

    def __init__(
        self,
        offer: Offer,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        token: str | None = None,
        limits: Limits | None = None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        """Binds the socket, so that a port in use is said before anything is opened.

        Args:
            offer: what is served.
            host: address or name of this machine.
            port: 0 for any that is free.
            token: see `make_app`.
            limits: None for the defaults.
            drain_seconds: see above.

        Raises:
            PcasegError: the address cannot be bound.
        """
        self.service = Service(offer, limits or Limits())
        self._drain_seconds = drain_seconds
        self._socket = _bound(host, port)
        app = make_app(self.service, host=host, token=token, failed=self.stop)
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=_LEFT_OPEN_S,
            )
        )
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"

    def serve_bundle(self) -> None:
        """Serves until it is stopped.

        Raises:
            PcasegError: the bundle cannot be opened, or a vocabulary does not fit it.
        """
        self.run(sockets=[self._socket])
        if self.service.failure is not None:
            raise self.service.failure

    def stop(self) -> None:
        """Ends once all that was asked is answered; safe from another thread."""
        self.service.drain()
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Answer to a signal; see the class."""
        if sig == signal.SIGTERM and self.service.phase == "ready" and self._drain_seconds:
            self.service.drain()
            timer = threading.Timer(self._drain_seconds, self.stop)
            timer.daemon = True
            timer.start()
        elif sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        else:
            self.stop()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise PcasegError(
            f"{host}, port {port}: cannot be served ({reason}); choose another --host or --port"
        ) from error
