"""The word `invoke`: one call of the endpoint, its answer to stdout or into a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment import watch
from deployment.aws import Cloud
from deployment.documents import LONGEST_CALL
from deployment.errors import Failed, Usage
from deployment.session import Words, connect
from deployment.settings import Settings


@dataclass(frozen=True)
class Invocation:
    """What is sent: `body` as bytes, or the s3:// URI of input for an asynchronous endpoint."""

    body: bytes | str
    content_type: str
    accept: str
    target: str = ""  # of many models, the one that is called
    stream: bool = False
    wait: float = 900.0  # seconds, for an asynchronous answer
    output: Path | None = None
    custom_attributes: str = ""
    inference_id: str = ""
    target_variant: str = ""


def invoke(words: Words, given: Invocation) -> None:
    """Call the endpoint once and print the answer; an asynchronous one is waited for."""
    settings = words.settings()
    if (settings.models is None) == bool(given.target):
        raise Usage(
            "--target-model is for endpoints of many models, and these need it",
            "python deploy.py list-models",
        )
    if isinstance(given.body, str) and settings.mode != "async":
        raise Usage(
            "input in S3 is for asynchronous endpoints", "name a file here, or run a transform"
        )
    if given.stream and settings.mode == "async":
        raise Usage("an asynchronous endpoint does not stream", "leave out --stream")
    cloud = connect(settings)
    _write(_parts(cloud, words, settings, given), given.output)
    if given.output is not None:
        words.talk.say(f"the answer is in {given.output}")


def _parts(cloud: Cloud, words: Words, settings: Settings, given: Invocation) -> Iterator[bytes]:
    asked = _request(settings, given)
    if settings.mode == "async":
        answer = cloud.call("sagemaker-runtime", "invoke_endpoint_async", **asked)
        words.talk.say(f"accepted: {answer['OutputLocation']}")
        yield watch.outcome(cloud, answer, words.pace, given.wait)
    elif given.stream:
        yield from _streamed(cloud, asked)
    else:
        answer = cloud.call("sagemaker-runtime", "invoke_endpoint", **asked)
        if attributes := answer.get("CustomAttributes"):
            words.talk.say(f"custom attributes: {attributes}")
        yield answer["Body"]


def _request(settings: Settings, given: Invocation) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "EndpointName": settings.name,
        "ContentType": given.content_type,
        "Accept": given.accept,
        "CustomAttributes": given.custom_attributes,
        "InferenceId": given.inference_id,
        "TargetVariant": given.target_variant,
        "TargetModel": given.target,
    }
    place = "InputLocation" if isinstance(given.body, str) else "Body"
    asked = {key: value for key, value in asked.items() if value} | {place: given.body}
    if settings.mode == "async":
        asked["InvocationTimeoutSeconds"] = LONGEST_CALL
    return asked


def _streamed(cloud: Cloud, asked: dict[str, Any]) -> Iterator[bytes]:
    """Yield the parts of a streamed answer. Raises `Failed` where it breaks off."""
    events = cloud.events("sagemaker-runtime", "invoke_endpoint_with_response_stream", **asked)
    for event in events:
        if part := event.get("PayloadPart"):
            yield part["Bytes"]
        else:
            kind, fault = next(iter(event.items()))
            raise Failed(f"the stream broke off: {kind}: {fault.get('Message', '')}")


def _write(parts: Iterator[bytes], output: Path | None) -> None:
    if output is not None:
        content = b"".join(parts)  # whole: a failed call leaves no half a file
        try:
            output.write_bytes(content)
        except OSError as error:
            raise Usage(f"{output} cannot be written: {error}") from error
        return
    last = b""
    for part in parts:
        sys.stdout.buffer.write(part)
        sys.stdout.flush()
        last = part or last
    if last and not last.endswith(b"\n") and sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
        sys.stdout.flush()
