"""Bodies of requests: read within limits of size and time, and unpacked."""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import ClientDisconnect, Request

from pcaseg.serving.limits import Limits, RequestError

_HEARD_OUT = 4
"""Bodies up to so many times the limit are read and thrown away, since many clients read no answer before the end."""

_WINDOW_BITS = 47  # of zlib: deflate and gzip, told apart by their heads


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request, unpacked where it came as gzip or deflate.

    Raises:
        RequestError: 413, it is too large; 408, it came too slowly; 400, it broke off or cannot be unpacked.
    """
    try:
        body = await asyncio.wait_for(_received(request, limits.body_bytes), limits.body_seconds)
    except asyncio.TimeoutError as error:
        raise RequestError(
            408, f"body: was not whole after {limits.body_seconds:g} seconds; send less, or faster"
        ) from error
    except ClientDisconnect as error:
        raise RequestError(400, "body: broke off; send it whole") from error
    packing = request.headers.get("content-encoding", "identity").strip().lower()
    if packing == "identity":
        return body
    if packing not in ("gzip", "deflate"):
        raise RequestError(400, f"body: packed as {packing[:40]!r}; send gzip, deflate, or plain bytes")
    return await asyncio.to_thread(_unpacked, body, limits.body_bytes)


async def _received(request: Request, most: int) -> bytes:
    body = bytearray()
    size = 0
    if _claimed(request) > most * _HEARD_OUT:
        raise _too_large(most)
    async for chunk in request.stream():
        size += len(chunk)
        if size > most * _HEARD_OUT:
            break
        if size <= most:
            body += chunk
    if size > most:
        raise _too_large(most)
    return bytes(body)


def _claimed(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0


def _unpacked(body: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(_WINDOW_BITS)
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise RequestError(400, "body: cannot be unpacked; send it as its Content-Encoding says") from error
    if len(found) > most:
        raise _too_large(most)
    if not unpacker.eof:
        raise RequestError(400, "body: its packing breaks off; send it whole")
    return found


def _too_large(most: int) -> RequestError:
    return RequestError(413, f"body: more than {most} bytes, which this server takes; send less")
