"""The logs of endpoints and jobs in CloudWatch. One that cannot be read is no failure itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from deployment.aws import Cloud
from deployment.errors import DeployError
from deployment.state import Endpoint

GROUP = "/aws/sagemaker/Endpoints/{name}"
_TAIL_LINES = 20


class Followed:
    """A log that is read from its beginning, each line once: all streams of a common prefix."""

    def __init__(self, cloud: Cloud, group: str, prefix: str) -> None:
        self._cloud, self._group, self._prefix = cloud, group, prefix
        self._places: dict[str, str] = {}  # where reading goes on, by stream

    def lines(self) -> list[str]:
        """Return what has been written since the last look; nothing if it cannot be read."""
        found: list[tuple[int, str]] = []
        with suppress(DeployError):
            streams = self._cloud.find("logs", "describe_log_streams", logGroupName=self._group,
                                       logStreamNamePrefix=self._prefix)  # fmt: skip
            for stream in (streams or {}).get("logStreams", ()):
                found += self._read(stream["logStreamName"])
        return [text for _, text in sorted(found, key=lambda event: event[0])]

    def _read(self, stream: str) -> Iterator[tuple[int, str]]:
        while True:
            place = self._places.get(stream)
            answer = self._cloud.call(
                "logs", "get_log_events", logGroupName=self._group, logStreamName=stream,
                startFromHead=True, **({"nextToken": place} if place else {}),
            )  # fmt: skip
            for event in answer["events"]:
                yield event["timestamp"], event["message"].rstrip()
            self._places[stream] = answer["nextForwardToken"]
            if not answer["events"]:
                return


def tail(cloud: Cloud, endpoint: Endpoint, lines: int = _TAIL_LINES) -> list[str]:
    """Return the last lines of the instance that came last, oldest first; none if unreadable.

    A group outlives its endpoint: streams from before this one are of another of its name.
    """
    since = endpoint.created.timestamp() * 1000 if endpoint.created else 0
    which = {"orderBy": "LastEventTime", "descending": True, "limit": 50}
    group = GROUP.format(name=endpoint.name)
    with suppress(DeployError):
        found = cloud.find("logs", "describe_log_streams", logGroupName=group, **which) or {}
        streams = [one for one in found.get("logStreams", ()) if one["creationTime"] >= since]
        streams.sort(key=lambda one: one["creationTime"])
        return [text for _, text in _last(cloud, group, streams[-1:], lines)]
    return []


def events(cloud: Cloud, name: str, lines: int, since_ms: int = 0) -> list[tuple[int, str]]:
    """Return (milliseconds, text) of the newest `lines` lines over all streams, oldest first."""
    group = GROUP.format(name=name)
    newest = cloud.find("logs", "describe_log_streams", logGroupName=group,
                        orderBy="LastEventTime", descending=True, limit=5)  # fmt: skip
    return _last(cloud, group, (newest or {}).get("logStreams", ()), lines, since_ms)


def of_job(cloud: Cloud, group: str, job: str, lines: int = _TAIL_LINES) -> list[str]:
    """Return the last lines of a job's streams, oldest first; none if they cannot be read."""
    with suppress(DeployError):
        found = cloud.find("logs", "describe_log_streams", logGroupName=group,
                           logStreamNamePrefix=f"{job}/") or {}  # fmt: skip
        return [text for _, text in _last(cloud, group, found.get("logStreams", ()), lines)]
    return []


def paragraph(lines: list[str]) -> str:
    """Return what a failure says below its sentence: the last lines of a log, if there are any."""
    return "".join(
        ["\nlast lines of its log:", *(f"\n  {line}" for line in lines)] if lines else []
    )


def _last(
    cloud: Cloud, group: str, streams: Iterable[Mapping[str, Any]], lines: int, since_ms: int = 0
) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for stream in streams:
        answer = cloud.call(
            "logs", "get_log_events", logGroupName=group, logStreamName=stream["logStreamName"],
            limit=lines, startFromHead=False, startTime=since_ms,
        )  # fmt: skip
        found += [(event["timestamp"], event["message"].rstrip()) for event in answer["events"]]
    return sorted(found, key=lambda event: event[0])[-lines:]


def shown(found: list[tuple[int, str]]) -> Iterator[str]:
    """Yield the lines with their time in UTC."""
    for milliseconds, text in found:
        yield f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%SZ} {text}"
