"""The List calls: pages of summaries, by the filters that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .store import Store

Given = Mapping[str, Any]


class Listing:
    """How a kind of thing is listed: its table, its noun, and the fields of a summary."""

    def __init__(self, kind: str, noun: str, fields: tuple[str, ...]) -> None:
        self.kind, self.noun, self.fields = kind, noun, fields

    def page(self, store: Store, given: Given) -> dict[str, Any]:
        """Return one page, newest first, by the filters that every List call has."""
        part = given.get("NameContains", "").lower()
        status = given.get("StatusEquals")
        found = [
            record for name, record in store.tables[self.kind].items()
            if part in name.lower() and status in (None, _status(record))
            and given.get("CreationTimeAfter", 0) <= record["CreationTime"]
            and record["CreationTime"] <= given.get("CreationTimeBefore", float("inf"))
        ]  # fmt: skip
        by = (lambda one: one[f"{self.noun}Name"]) if given.get("SortBy") == "Name" else _created
        found.sort(key=by, reverse=given.get("SortOrder", "Descending") == "Descending")
        start, size = int(given.get("NextToken") or 0), int(given.get("MaxResults") or 100)
        page = [{key: one[key] for key in self.fields if key in one}
                for one in found[start : start + size]]  # fmt: skip
        more = {"NextToken": str(start + size)} if len(found) > start + size else {}
        return {"page": page, **more}


def _created(record: Given) -> float:
    return float(record["CreationTime"])


def _status(record: Given) -> Any:
    return next((value for key, value in record.items() if key.endswith("Status")), None)


_TIMES = ("CreationTime", "LastModifiedTime")
LISTINGS = {
    "ListModels": ("Models", Listing("models", "Model", ("ModelName", "ModelArn", "CreationTime"))),
    "ListEndpointConfigs": (
        "EndpointConfigs",
        Listing("configs", "EndpointConfig",
                ("EndpointConfigName", "EndpointConfigArn", "CreationTime")),
    ),
    "ListEndpoints": (
        "Endpoints",
        Listing("endpoints", "Endpoint",
                ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime",
                 "EndpointStatus")),
    ),
    "ListTransformJobs": (
        "TransformJobSummaries",
        Listing("transform_jobs", "TransformJob",
                ("TransformJobName", "TransformJobArn", *_TIMES, "TransformEndTime",
                 "TransformJobStatus", "FailureReason")),
    ),
    "ListTrainingJobs": (
        "TrainingJobSummaries",
        Listing("training_jobs", "TrainingJob",
                ("TrainingJobName", "TrainingJobArn", *_TIMES, "TrainingEndTime",
                 "TrainingJobStatus")),
    ),
}  # fmt: skip
