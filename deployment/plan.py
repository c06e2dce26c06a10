"""The plan: what exists and what should, compared; the difference as a list of calls.

Pure: no AWS, no clock, no disk. A step is a `Call` with its final arguments or a `Wait`;
`--dry-run` prints the list that the real run applies. Names of models and configs end in a digest
of what they hold, so what exists under the right name is right, and nothing that serves is edited.
What cannot be done is a `Refused`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from deployment import difference, documents, history, metrics, scaling, supplies
from deployment.documents import Document, digest_name
from deployment.errors import Refused
from deployment.settings import Settings
from deployment.state import DEFAULTS_TAG, OWNER_TAG, TRANSITIONAL, VARIANT, Config, State, Target
from deployment.step import Call, Plan, Step, Wait
from deployment.supplies import tags
from deployment.update import (
    START_SECONDS,
    bring,
    counted,
    refuse,
    remembered,
    smoke,
    update,
    update_limit,
)

SETTLED = frozenset({"InService", "UpdateRollbackFailed"})


def deploy(target: Target, state: State, *, adopt: bool = False, resumed: bool = False) -> Plan:
    """Plan what makes the endpoint what the settings say.

    `adopt` takes over an endpoint that we did not make; `resumed` tests it even if nothing changes.
    """
    settings = target.settings
    refuse(target, state, adopt)
    models, makes = supplies.models(target)
    config = documents.endpoint_config(target, *models)
    config_name = digest_name(settings.name, config)
    steps: list[Step] = []
    if state.endpoint is not None and state.endpoint.status in TRANSITIONAL:
        steps.append(Wait(settings.name, "settled", update_limit(settings)))
    steps += supplies.uploads(target, state)
    steps += [call for call in makes if call.arguments["ModelName"] not in state.models]
    steps += _config(target, state, config_name, config)
    steps += _alarms(settings, state)
    change, restore = bring(settings, state, config_name)
    steps += change
    steps += scaling.changes(settings, state, removed=bool(restore))
    if settings.smoke is not None and (steps or resumed):
        steps.append(smoke(settings))
    steps += _tagging(settings, state, config_name if steps or resumed else "")
    steps += _prune(settings, state, config_name, models)
    failed = remembered(state, history.failed(state, config_name)) if change else ()
    reasons = _reasons(state, makes[0].arguments, config) if change else ()
    said = (*_unsettled(state), *notes(settings, state, bool(change)))
    return Plan(settings.name, tuple(steps), restore, config_name, failed, reasons, said)


def _unsettled(state: State) -> Iterator[str]:
    """Say that a plan made now may not be the one that is carried out."""
    if state.endpoint is not None and state.endpoint.status in TRANSITIONAL:
        yield (f"{state.endpoint.name} is {state.endpoint.status}: that is waited for, and what it "
               "then is decides what follows")  # fmt: skip


def _reasons(state: State, model: Mapping[str, Any], config: Document) -> tuple[str, ...]:
    """Say what differs from what serves; nothing where nothing serves."""
    if state.current is None:
        return ()
    found = difference.lines(model, config, state.model, state.current.document)
    return found or ("the content behind the model's S3 URI: changed",)


def notes(settings: Settings, state: State, changes: bool) -> Iterator[str]:
    """Say what differs from the settings and stays as it is."""
    if settings.scaling is None and state.scaling:
        yield from scaling.kept(state)
    older = state.current is not None and DEFAULTS_TAG not in state.current.tags
    if older and settings.mode != "serverless" and settings.metrics is None:
        if settings.mode == "instance" and settings.models is None:
            yield (f"{settings.name} was made before metrics of the container and routing by "
                   "outstanding requests were the default; to have them here, write [metrics] and "
                   'instance.routing = "least-outstanding"')  # fmt: skip
        else:
            yield (f"{settings.name} was made before metrics of the container were the default; "
                   "to have them here, write [metrics]")  # fmt: skip
    endpoint, count = state.endpoint, settings.count
    if settings.mode == "serverless" or endpoint is None or endpoint.status not in SETTLED:
        return
    if endpoint.instances == count:
        return
    runs = f"{endpoint.instances} instances run and instance.count is {count}"
    if settings.scaling is not None:
        yield f"{runs}: between scaling.min and scaling.max, scaling decides"
    elif state.scaling and not counted(settings, state):
        yield f"{runs}: scaling that is not in endpoint.toml decides"
    elif changes:
        yield f"{runs}: this change brings {count}"
    else:
        yield f"{runs}: the next change brings {count}, or set instance.count to keep them"


def _config(target: Target, state: State, name: str, config: Document) -> Iterator[Call]:
    tagged = tags(target.settings)
    if target.defaults:
        tagged = [*tagged, {"Key": DEFAULTS_TAG, "Value": target.defaults}]
    if any(known.name == name for known in state.configs):
        return
    named = {"EndpointConfigName": name}
    undo = Call("sagemaker", "delete_endpoint_config", named, f"the config {name}")
    yield Call("sagemaker", "create_endpoint_config",
               {**named, **config, "Tags": tagged}, f"the config {name}", undo)  # fmt: skip


def _alarms(settings: Settings, state: State) -> Iterator[Call]:
    for name, alarm in {**documents.alarms(settings), **metrics.alarms(settings)}.items():
        if scaling.holds(alarm, state.alarms.get(name)):
            continue
        undo = Call("cloudwatch", "delete_alarms", {"AlarmNames": [name]}, f"the alarm {name}")
        yield Call("cloudwatch", "put_metric_alarm", {**alarm, "Tags": tags(settings)},
                   f"the alarm {name}", None if name in state.alarms else undo)  # fmt: skip


def autoscale(settings: Settings, state: State) -> Plan:
    """Plan the scaling alone, of an endpoint that serves."""
    if state.endpoint is None or state.endpoint.status not in SETTLED:
        status = state.endpoint.status if state.endpoint else "missing"
        raise Refused(f"scaling needs an endpoint in service, and {settings.name} is {status}")
    if settings.scaling is None:
        return Plan(settings.name, tuple(scaling.unscale(state.scaling)))
    return Plan(settings.name, tuple(scaling.changes(settings, state)))


def _tagging(settings: Settings, state: State, config: str) -> Iterator[Call]:
    """Tags of a serving endpoint can change in place; those taken out of the file stay on it."""
    wanted = {tag["Key"]: tag["Value"] for tag in tags(settings)}
    endpoint = state.endpoint
    if endpoint is None or endpoint.status == "Failed":
        return
    if not wanted.items() <= endpoint.tags.items():
        arguments = {"ResourceArn": endpoint.arn, "Tags": tags(settings)}
        yield Call("sagemaker", "add_tags", arguments, "its tags")
    if config:
        yield from remembered(state, history.served(state, config))


def _prune(
    settings: Settings, state: State, wanted: str, models: tuple[str, ...]
) -> Iterator[Call]:
    """Delete our configs beyond the number kept, and the models that only they used."""
    in_use = state.endpoint.config if state.endpoint else ""
    others = [config for config in state.configs if config.name not in (wanted, in_use)]
    others.sort(key=lambda config: history.bad(state, config.name))  # the good ones are kept first
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


def rollback(settings: Settings, state: State, name: str = "") -> Plan:
    """Plan the return to the config `name`, or to the last good one before that in use."""
    endpoint, current = state.endpoint, state.current
    if endpoint is None or endpoint.status not in SETTLED or current is None:
        status = endpoint.status if endpoint else "missing"
        raise Refused(f"only an endpoint in service can roll back, and {settings.name} is {status}")
    choice = history.target(state, current, name)
    config = choice.config
    notes = [f"{one} is passed over: it failed or was rolled back from" for one in choice.skipped]
    if history.bad(state, config.name):
        notes.append(f"{config.name} failed or was rolled back from before")
    kind = config.variants.get(VARIANT, "")
    steps, restore = update(settings, state, config.name, kind, None)
    steps += restore
    steps += remembered(state, history.served(state, config.name, left=current.name))
    if settings.smoke is not None:
        steps.append(smoke(settings))
    failed = remembered(state, history.failed(state, config.name))
    return Plan(settings.name, tuple(steps), restore, config.name, failed, notes=tuple(notes))


def delete(name: str, state: State) -> Plan:
    """Plan the removal of everything that carries our tag: the endpoint first, for it bills."""
    endpoint = state.endpoint
    if endpoint is not None and endpoint.tags.get(OWNER_TAG) != name:
        raise Refused(f"an endpoint {name} exists, and it was not made by this tool",
                      "delete it where it was made")  # fmt: skip
    steps: list[Step] = []
    if endpoint is not None and endpoint.status in TRANSITIONAL:
        until: Literal["gone", "settled"] = "gone" if endpoint.status == "Deleting" else "settled"
        steps.append(Wait(name, until, START_SECONDS))
    steps += scaling.unscale(state.scaling)
    if endpoint is not None and endpoint.status != "Deleting":
        named = {"EndpointName": name}
        steps.append(Call("sagemaker", "delete_endpoint", named, f"the endpoint {name}"))
        steps.append(Wait(name, "gone", START_SECONDS))
    steps += _removal(state.configs, set(state.models))
    if state.alarms:
        names = {"AlarmNames": sorted(state.alarms)}
        steps.append(Call("cloudwatch", "delete_alarms", names, "its alarms"))
    return Plan(name, tuple(steps))
