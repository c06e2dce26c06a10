"""The plan: what exists and what should, compared; the difference as a list of calls.

Pure: no AWS, no clock, no disk. A step is a `Call` with its final arguments or a `Wait`;
`--dry-run` prints the list that the real run applies. Names of models and configs end in a digest
of what they hold, so what exists under the right name is right, and nothing that serves is edited.
What cannot be done is a `Refused`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from deployment import documents, scaling, supplies
from deployment.combinations import shortest_update_seconds
from deployment.documents import Document, digest_name
from deployment.errors import Refused
from deployment.settings import Settings
from deployment.state import OWNER_TAG, SHADOW, TRANSITIONAL, VARIANT, Config, State, Target
from deployment.step import Call, Plan, Step, Wait
from deployment.supplies import tags

_START_SECONDS = 3600  # what botocore's own waiter gives an endpoint
SETTLED = frozenset({"InService", "UpdateRollbackFailed"})


def deploy(target: Target, state: State, *, adopt: bool = False, resumed: bool = False) -> Plan:
    """Plan what makes the endpoint what the settings say.

    `adopt` takes over an endpoint that we did not make; `resumed` tests it even if nothing changes.
    """
    settings = target.settings
    _refuse(target, state, adopt)
    models, makes = supplies.models(target)
    config = documents.endpoint_config(target, *models)
    config_name = digest_name(settings.name, config)
    steps: list[Step] = []
    if state.endpoint is not None and state.endpoint.status in TRANSITIONAL:
        steps.append(Wait(settings.name, "settled", update_limit(settings)))
    steps += supplies.uploads(target, state)
    steps += [call for call in makes if call.arguments["ModelName"] not in state.models]
    steps += _config(settings, state, config_name, config)
    steps += _alarms(settings, state)
    change, restore = _endpoint(settings, state, config_name)
    steps += change
    steps += scaling.changes(settings, state, removed=bool(restore))
    if settings.smoke is not None and (steps or resumed):
        steps.append(_smoke(settings))
    steps += _tagging(settings, state)
    steps += _prune(settings, state, config_name, models)
    return Plan(settings.name, tuple(steps), restore, config_name)


def _refuse(target: Target, state: State, adopt: bool) -> None:
    """Refuse what UpdateEndpoint cannot do, and touching what is not ours."""
    endpoint, settings = state.endpoint, target.settings
    if endpoint is None or endpoint.status == "Failed":
        return
    if endpoint.tags.get(OWNER_TAG) != settings.name and not adopt:
        raise Refused(
            f"an endpoint {settings.name} exists, and it was not made by this tool",
            "choose another name, or take it over with --adopt",
        )
    before = state.current
    if before is None:
        return
    if settings.mode == "serverless" and "serverless" not in before.variants.values():
        raise Refused(
            "an endpoint with instances cannot become serverless (AWS refuses the update)",
            "delete it first (python deploy.py delete), or give the serverless one another name",
        )
    wanted = {VARIANT} | ({SHADOW} if settings.shadow else set())
    if settings.update.policy != "all-at-once" and set(before.variants) != wanted:
        raise Refused(
            f"the endpoint's variants are {', '.join(sorted(before.variants))} and would become "
            f"{', '.join(sorted(wanted))}; a {settings.update.policy} update needs the same names",
            "use --set update.policy=all-at-once for this one change",
        )


def _config(settings: Settings, state: State, name: str, config: Document) -> Iterator[Call]:
    if any(known.name == name for known in state.configs):
        return
    named = {"EndpointConfigName": name}
    undo = Call("sagemaker", "delete_endpoint_config", named, f"the config {name}")
    yield Call("sagemaker", "create_endpoint_config",
               {**named, **config, "Tags": tags(settings)}, f"the config {name}", undo)  # fmt: skip


def _alarms(settings: Settings, state: State) -> Iterator[Call]:
    for name, alarm in documents.alarms(settings).items():
        if scaling.holds(alarm, state.alarms.get(name)):
            continue
        undo = Call("cloudwatch", "delete_alarms", {"AlarmNames": [name]}, f"the alarm {name}")
        yield Call("cloudwatch", "put_metric_alarm", {**alarm, "Tags": tags(settings)},
                   f"the alarm {name}", None if name in state.alarms else undo)  # fmt: skip


def update_limit(settings: Settings) -> int:
    """Return how long an update may take, in seconds, before we stop watching it."""
    policy = settings.update.max_seconds or shortest_update_seconds(settings)
    return policy + _START_SECONDS


def _endpoint(settings: Settings, state: State, config: str) -> tuple[list[Step], tuple[Call, ...]]:
    """Return the steps that bring the endpoint to `config`, and what failure must put back."""
    name, endpoint = settings.name, state.endpoint
    named = {"EndpointName": name}
    if endpoint is None or endpoint.status == "Failed":
        removal = Call("sagemaker", "delete_endpoint", named, f"the endpoint {name}")
        create = Call(
            "sagemaker",
            "create_endpoint",
            {**named, "EndpointConfigName": config, "Tags": tags(settings)},
            f"the endpoint {name}",
            removal,
        )
        wait = Wait(name, "in service", _START_SECONDS, config)
        if endpoint is None:
            return [create, wait], ()
        failed = Call("sagemaker", "delete_endpoint", named, f"the failed endpoint {name}")
        return [failed, Wait(name, "gone", _START_SECONDS), create, wait], ()
    if endpoint.config == config and endpoint.status != "UpdateRollbackFailed":
        return [], ()
    kind = settings.instance_type or "serverless"
    return _update(settings, state, config, kind, documents.deployment_config(settings))


def _update(
    settings: Settings, state: State, config: str, kind: str, policy: Document | None
) -> tuple[list[Step], tuple[Call, ...]]:
    """Return an update in place to `config`, whose variant runs on `kind` of instance.

    The count that scaling has reached is kept, unless the type of instance changes: then AWS
    refuses the update of a scaled variant, and its scaling is taken away and put back around it.
    """
    before = (state.current.variants if state.current else {}).get(VARIANT)
    retype = bool(state.scaling) and before != kind
    retain = bool(state.scaling) and not retype
    arguments: Document = {
        "EndpointName": settings.name,
        "EndpointConfigName": config,
        "RetainAllVariantProperties": retain,
    }
    if retain:
        # Capture belongs to the config and the weights are ours: only the count is retained.
        excluded = ("DesiredWeight", "DataCaptureConfig")
        arguments["ExcludeRetainedVariantProperties"] = [
            {"VariantPropertyType": kind} for kind in excluded
        ]
    if policy is not None:
        arguments["DeploymentConfig"] = policy
    steps: list[Step] = [
        *(scaling.unscale(state.scaling) if retype else ()),
        Call("sagemaker", "update_endpoint", arguments, f"the update to {config}"),
        Wait(settings.name, "in service", update_limit(settings), config),
    ]
    return steps, scaling.put_back(state.scaling) if retype else ()


def autoscale(settings: Settings, state: State) -> Plan:
    """Plan the scaling alone, of an endpoint that serves."""
    if state.endpoint is None or state.endpoint.status not in SETTLED:
        status = state.endpoint.status if state.endpoint else "missing"
        raise Refused(f"scaling needs an endpoint in service, and {settings.name} is {status}")
    return Plan(settings.name, tuple(scaling.changes(settings, state)))


def _smoke(settings: Settings) -> Call:
    smoke = settings.smoke
    assert smoke is not None
    arguments = {
        "EndpointName": settings.name,
        "ContentType": smoke.content_type,
        "Accept": smoke.accept,
        "Body": smoke.body,
    }
    if smoke.target is not None:
        arguments["TargetModel"] = smoke.target
    operation = "invoke_endpoint_async" if settings.mode == "async" else "invoke_endpoint"
    return Call("sagemaker-runtime", operation, arguments, "a test call")


def _tagging(settings: Settings, state: State) -> Iterator[Call]:
    """Tags of a serving endpoint can change in place; those taken out of the file stay on it."""
    wanted = {tag["Key"]: tag["Value"] for tag in tags(settings)}
    endpoint = state.endpoint
    if endpoint is None or endpoint.status == "Failed" or wanted.items() <= endpoint.tags.items():
        return
    arguments = {"ResourceArn": endpoint.arn, "Tags": tags(settings)}
    yield Call("sagemaker", "add_tags", arguments, "its tags")


def _prune(
    settings: Settings, state: State, wanted: str, models: tuple[str, ...]
) -> Iterator[Call]:
    """Delete our configs beyond the number kept, and the models that only they used."""
    in_use = state.endpoint.config if state.endpoint else ""
    others = [config for config in state.configs if config.name not in (wanted, in_use)]
    spare = settings.keep - (in_use not in ("", wanted))
    old = others[max(spare, 0) :]
    kept = {name for config in state.configs if config not in old for name in config.models}
    yield from _removal(old, {name for config in old for name in config.models} - kept - {*models})


def _removal(configs: list[Config] | tuple[Config, ...], models: set[str]) -> Iterator[Call]:
    for config in configs:
        yield Call("sagemaker", "delete_endpoint_config", {"EndpointConfigName": config.name},
                   f"the config {config.name}")  # fmt: skip
    for name in sorted(models):
        yield Call("sagemaker", "delete_model", {"ModelName": name}, f"the model {name}")


def rollback(settings: Settings, state: State) -> Plan:
    """Plan the return to the newest kept config that is older than the one in use."""
    endpoint, current = state.endpoint, state.current
    if endpoint is None or endpoint.status not in SETTLED or current is None:
        status = endpoint.status if endpoint else "missing"
        raise Refused(f"only an endpoint in service can roll back, and {settings.name} is {status}")
    older = [config for config in state.configs if config.created < current.created]
    if not older:
        raise Refused(
            f"no config of {settings.name} older than {current.name} is kept",
            "keep more of them with `keep = N` in endpoint.toml",
        )
    kind = older[0].variants.get(VARIANT, "")
    steps, restore = _update(settings, state, older[0].name, kind, None)
    steps += restore
    if settings.smoke is not None:
        steps.append(_smoke(settings))
    return Plan(settings.name, tuple(steps), restore, older[0].name)


def delete(name: str, state: State) -> Plan:
    """Plan the removal of everything that carries our tag: the endpoint first, for it bills."""
    endpoint = state.endpoint
    if endpoint is not None and endpoint.tags.get(OWNER_TAG) != name:
        raise Refused(f"an endpoint {name} exists, and it was not made by this tool",
                      "delete it where it was made")  # fmt: skip
    steps: list[Step] = []
    if endpoint is not None and endpoint.status in TRANSITIONAL:
        until: Literal["gone", "settled"] = "gone" if endpoint.status == "Deleting" else "settled"
        steps.append(Wait(name, until, _START_SECONDS))
    steps += scaling.unscale(state.scaling)
    if endpoint is not None and endpoint.status != "Deleting":
        named = {"EndpointName": name}
        steps.append(Call("sagemaker", "delete_endpoint", named, f"the endpoint {name}"))
        steps.append(Wait(name, "gone", _START_SECONDS))
    steps += _removal(state.configs, set(state.models))
    if state.alarms:
        names = {"AlarmNames": sorted(state.alarms)}
        steps.append(Call("cloudwatch", "delete_alarms", names, "its alarms"))
    return Plan(name, tuple(steps))
