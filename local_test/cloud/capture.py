"""Data capture: calls and answers as JSON lines in S3, a file a call."""

from __future__ import annotations

import base64
import json
import random
import time
import uuid
from collections.abc import Mapping
from typing import Any

from .calls import Call, Reply
from .fleet import Variant
from .services import Services


def capture(
    services: Services, config: Mapping[str, Any], variant: Variant, call: Call, reply: Reply
) -> None:
    """Write what the config's DataCaptureConfig asks for, if this call is in the sample."""
    wanted = config.get("DataCaptureConfig", {})
    if not wanted.get("EnableCapture"):
        return
    if random.random() * 100 >= wanted["InitialSamplingPercentage"]:
        return
    modes = {option["CaptureMode"] for option in wanted["CaptureOptions"]}
    types = wanted.get("CaptureContentTypeHeader", {})
    data = {}
    if modes & {"Input", "InputAndOutput"}:
        data["endpointInput"] = _part("INPUT", call.body, call.content_type, types)
    if modes & {"Output", "InputAndOutput"}:
        answered = reply.headers.get("Content-Type", "")
        data["endpointOutput"] = _part("OUTPUT", reply.body, answered, types)
    now = time.gmtime()
    event = {
        "eventId": str(uuid.uuid4()),
        **({"inferenceId": sent} if (sent := call.headers.get("Inference-Id")) else {}),
        "inferenceTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
    }
    line = {"captureData": data, "eventMetadata": event, "eventVersion": "0"}
    name = f"{time.strftime('%Y/%m/%d/%H/%M-%S', now)}-{event['eventId']}.jsonl"
    uri = f"{wanted['DestinationS3Uri'].rstrip('/')}/{variant.endpoint}/{variant.name}/{name}"
    services.write(uri, json.dumps(line).encode() + b"\n")


def _part(mode: str, body: bytes, kind: str, types: Mapping[str, Any]) -> dict[str, str]:
    """Return one side of a call: text of the listed types as it is, everything else as base64.

    A type is compared without its parameters, as AWS does with `text/csv; charset=utf-8`.
    """
    for encoding, key in (("CSV", "CsvContentTypes"), ("JSON", "JsonContentTypes")):
        if kind.partition(";")[0].strip() in types.get(key, ()):
            return {"observedContentType": kind, "mode": mode, "encoding": encoding,
                    "data": body.decode("utf-8", "replace")}  # fmt: skip
    return {"observedContentType": kind, "mode": mode, "encoding": "BASE64",
            "data": base64.b64encode(body).decode()}  # fmt: skip
