"""The words of `deploy.py` that only look or call: status, logs, list, invoke."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from deployment import console, figures, plan, survey
from deployment import logs as cloudwatch
from deployment.aws import Cloud
from deployment.errors import DeployError, Failed
from deployment.session import Words, connect
from deployment.state import OWNER_TAG, VARIANT, Endpoint

_IDLE_AFTER = timedelta(days=1)


def status(words: Words) -> None:
    """Print what the endpoint is."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings)
    state = survey.state(cloud, settings)
    endpoint = state.endpoint
    if endpoint is None:
        raise Failed(f"there is no endpoint {settings.name} in {cloud.region}",
                     "python deploy.py list --all shows what there is")  # fmt: skip
    value = {
        "endpoint": endpoint.name,
        "status": endpoint.status,
        "reason": endpoint.reason,
        "config": endpoint.config,
        "age": _age(endpoint.created),
        "instances": endpoint.instances,
        "variants": dict(state.current.variants) if state.current else {},
        "scaling": [dict(scaling.target) for scaling in state.scaling],
        "kept": [config.name for config in state.configs],
        "ours": endpoint.tags.get(OWNER_TAG) == endpoint.name,
        "last hour": figures.last(cloud, settings.name),
        "notes": list(plan.notes(settings, state, changes=False)),
        "console": console.link(cloud.partition, cloud.region, f"endpoints/{endpoint.name}"),
    }
    lines = [
        f"{key:>10}  {_plain(what)}" for key, what in value.items() if what not in ("", [], {})
    ]
    talk.result(value, "\n".join(lines))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {what}" for key, what in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def _age(created: datetime | None) -> str:
    if created is None:
        return "unknown"
    seconds = int((datetime.now(UTC) - created).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def logs(words: Words, lines: int, follow: bool) -> None:
    """Print the last lines of the endpoint's log."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings)
    found = cloudwatch.events(cloud, settings.name, lines)
    if not found:
        if survey.find_endpoint(cloud, settings.name) is None:
            raise Failed(
                f"there is no endpoint {settings.name} in {cloud.region}, and no log of one",
                "python deploy.py list --all shows what there is; a job's log is in "
                "/aws/sagemaker/TrainingJobs or /aws/sagemaker/TransformJobs",
            )
        talk.say(f"{cloudwatch.GROUP.format(name=settings.name)} holds no lines yet")
    if words.machine:
        talk.result([{"time": time, "text": text} for time, text in found])
        return
    pace, seen, since = words.pace, set[tuple[int, str]](), 0
    while True:
        for line in cloudwatch.shown([event for event in found if event not in seen]):
            talk.result(None, line)
        if not follow:
            return
        if found:  # the next look begins with the last line of this one
            seen, since = set(found), found[-1][0]
        pace.sleep(pace.poll)
        found = cloudwatch.events(cloud, settings.name, 1000, since)


def listed(words: Words, everything: bool) -> None:
    """Print the endpoints of this region, ours only unless `everything`, and mark the idle."""
    region, profile = words.overrides.get("region"), words.overrides.get("profile")
    region = region or _region_of(words)
    cloud = Cloud(region, profile)
    rows = []
    for summary in cloud.pages("sagemaker", "list_endpoints", "Endpoints"):
        endpoint = survey.find_endpoint(cloud, summary["EndpointName"])
        if endpoint and (everything or OWNER_TAG in endpoint.tags):
            rows.append(_row(cloud, endpoint))
    if not rows:
        words.talk.say(f"no endpoints in {cloud.region}")
    words.talk.table(rows, ("name", "status", "age", "instances", "calls_last_day", "idle"))


def _region_of(words: Words) -> str | None:
    """The file's region, if there is a file; `list` needs nothing else of it."""
    try:
        return words.settings().region
    except DeployError:
        return None


def _row(cloud: Cloud, endpoint: Endpoint) -> dict[str, Any]:
    calls = _calls(cloud, endpoint.name)
    old = endpoint.created is not None and datetime.now(UTC) - endpoint.created >= _IDLE_AFTER
    return {
        "name": endpoint.name,
        "status": endpoint.status,
        "age": _age(endpoint.created),
        "instances": endpoint.instances,
        "calls_last_day": "unknown" if calls is None else calls,
        "idle": "idle" if calls == 0 and old else "",
    }


def _calls(cloud: Cloud, name: str) -> int | None:
    """Return the invocations of the last day over all variants, None where it is not permitted."""
    now = datetime.now(UTC)
    try:
        found = cloud.call(
            "cloudwatch", "get_metric_statistics", Namespace="AWS/SageMaker",
            MetricName="Invocations", StartTime=now - timedelta(days=1), EndTime=now,
            Period=86400, Statistics=["Sum"],
            Dimensions=[{"Name": "EndpointName", "Value": name},
                        {"Name": "VariantName", "Value": VARIANT}],
        )  # fmt: skip
    except DeployError:
        return None
    return int(sum(point["Sum"] for point in found["Datapoints"]))
