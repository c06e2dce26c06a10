"""A call of a model as HTTP: a request becomes a `Call`, and its reply a response."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import cast

from flask import Response
from werkzeug.datastructures import EnvironHeaders, Headers

from skserve import telemetry
from skserve.config import MIB, Config
from skserve.errors import BadRequest, TooLarge
from skserve.inference.calls import Call, Reply, attribute
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import Invocable
from skserve.serving.body import Environ, Incoming
from skserve.serving.responses import (
    ATTRIBUTES,
    INFERENCE_ID,
    Answer,
    fault,
    headers_of,
    identity,
    whole,
)
from skserve.telemetry import Record

log = logging.getLogger("skserve")

Wsgi = Callable[..., Iterable[bytes]]


# The same as WSGI spells them. Looking up a header by its name takes ten times as long.
_ATTRIBUTES, _INFERENCE_ID = (
    "HTTP_" + name.upper().replace("-", "_") for name in (ATTRIBUTES, INFERENCE_ID)
)


# Bytes of a body that are read whole at most, if it can be answered in portions.
LARGE = 8 * MIB

# SageMaker's limit to the payload of a call times the calls at once, in MB.
_PLATFORM_PAYLOAD = 100


class _Answer(Response):
    """A response whose headers are complete: werkzeug would look for what they lack."""

    def get_wsgi_headers(self, environ: Environ) -> Headers:
        return self.headers


def invocation(
    environ: Environ,
    registry: Invocable,
    config: Config,
    bodies: Bodies,
    failed: Callable[[Exception, Record], Answer] = fault,
    **facts: str,
) -> Response:
    """Let a model answer the request of `environ`; `facts` are for its line in the log.

    `failed` makes the response to an error that is not answered in our words.
    """
    record = telemetry.begin(request_id(environ))
    record.facts.update(facts)
    held = ExitStack()
    try:
        held.enter_context(registry.place())
        incoming = Incoming(environ, config)
        try:
            reply = _in_portions(registry, config, environ, incoming, bodies, held)
            if reply is None:
                body = held.enter_context(incoming.whole(bodies))
                reply = registry.invoke(_call(body, environ))
                if isinstance(reply.body, bytes):  # until it has left
                    held.enter_context(bodies.hold(len(reply.body), own=sys.maxsize))
        finally:
            record.bytes_in = incoming.seen
        response = respond(reply, environ, record, held)
    except Exception as error:
        response = response_of(failed(error, record))
    response.call_on_close(held.close)
    if not response.is_streamed:
        record.write(response)
    return response


def parameters(config: Config) -> dict[str, object]:
    """Say to batch transform how to call us (contract 5.2)."""
    concurrent = config.concurrent_transforms or min(config.workers or 1, _PLATFORM_PAYLOAD)
    payload = min(config.max_payload_mb, max(1, _PLATFORM_PAYLOAD // concurrent))
    return {
        "MaxConcurrentTransforms": concurrent,
        "BatchStrategy": config.batch_strategy,
        "MaxPayloadInMB": payload,
    }


def _in_portions(
    registry: Invocable,
    config: Config,
    environ: Environ,
    body: Incoming,
    bodies: Bodies,
    held: ExitStack,
) -> Reply | None:
    """Answer a body while it is read if it is large, or in batch; None where it is to be whole."""
    call = _call(b"", environ)
    duplex = attribute(call, "stream") == "duplex"
    if not (config.batch or duplex) and body.fits(LARGE):
        return None
    with ExitStack() as counted:
        counted.enter_context(bodies.hold(min(LARGE, body.length or LARGE)))
        reply = registry.transform(call, body.part if duplex else body.read, duplex)
        if reply is not None:
            held.push(counted.pop_all())
        return reply


def _call(body: bytes, environ: Environ) -> Call:
    return Call(
        body,
        environ.get("CONTENT_TYPE", "") or environ.get("HTTP_CONTENTTYPE", ""),
        environ.get("HTTP_ACCEPT", ""),
        environ.get(_ATTRIBUTES, ""),
        cast(Mapping[str, str], EnvironHeaders(environ)),
    )


def respond(reply: Reply, environ: Environ, record: Record, held: ExitStack) -> Response:
    attributes = environ.get(_ATTRIBUTES, "")
    body = reply.body
    if isinstance(body, bytes):
        return response_of(whole(reply, attributes, environ.get("HTTP_ACCEPT_ENCODING", "")))
    if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" and reply.length is None:
        # Without chunks, a stream that breaks would look like its end.
        parts = held.enter_context(closing(body))  # type: ignore[type-var]
        return _Answer(b"".join(parts), reply.status, headers_of(reply, attributes))
    sending = Sending(body, reply.status, record)  # the response closes it
    response = _Answer(sending, reply.status, headers_of(reply, attributes))
    if reply.length is not None:
        response.content_length = reply.length
    return response


def response_of(answer: Answer) -> Response:
    """Make Flask's response of an answer."""
    return _Answer(answer.body, answer.status_code, answer.headers)


class Sending:
    """The parts of an answer while they leave; the line of the log is written when they have.

    A failure breaks the connection: the status has left, and an end would look like success.
    """

    def __init__(self, parts: Iterator[bytes], status: int, record: Record) -> None:
        self._parts, self._record = parts, record
        self._ended = "left by the client"
        self.status_code, self.content_length = status, 0  # what is said in the log

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            part = next(self._parts)
        except StopIteration:
            self._ended = "whole"
            raise
        except Exception as error:
            self._ended = "broken"
            self._say(error)
            # The worker closes the connection, without the last chunk and without a word.
            raise BrokenPipeError(errno.EPIPE, "the stream broke") from error
        self.content_length += len(part)
        return part

    def _say(self, error: Exception) -> None:
        """Say why it broke; what the caller did wrong, such as to leave, needs no traceback."""
        if isinstance(error, BadRequest | TooLarge):
            log.info("request %s: the stream broke: %s", self._record.request_id, error.logged)
        else:
            log.error("request %s: the stream broke.", self._record.request_id, exc_info=error)

    def close(self) -> None:
        close = getattr(self._parts, "close", None)  # an iterator need not have one
        if close:
            close()
        self._record.facts["stream"] = self._ended
        self._record.write(self)


def request_id(environ: Environ) -> str:
    """Return the id of a request: the caller's own, or a new one."""
    return identity(environ.get(_INFERENCE_ID, ""))
