"""The calls that bring an endpoint to a config, try it, and remember what became of it. Pure."""

from __future__ import annotations

from deployment import documents, guardrails, history, scaling
from deployment.combinations import shortest_update_seconds
from deployment.documents import Document
from deployment.errors import Refused
from deployment.settings import Settings
from deployment.state import OWNER_TAG, SHADOW, VARIANT, State, Target
from deployment.step import Call, Step, Wait
from deployment.supplies import tags

START_SECONDS = 3600  # what botocore's own waiter gives an endpoint


def counted(settings: Settings, state: State) -> bool:
    """Say whether the settings ask for another count than the config in use was made with."""
    before = state.current.count if state.current else None
    return before is not None and before != settings.machines.count


def refuse(target: Target, state: State, adopt: bool) -> None:
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
    wanted = {VARIANT, *settings.variants} | ({SHADOW} if settings.shadow else set())
    if settings.update.policy != "all-at-once" and set(before.variants) != wanted:
        raise Refused(
            f"the endpoint's variants are {', '.join(sorted(before.variants))} and would become "
            f"{', '.join(sorted(wanted))}; a {settings.update.policy} update needs the same names",
            "use --set update.policy=all-at-once for this one change",
        )


def update_limit(settings: Settings) -> int:
    """Return how long an update may take, in seconds, before we stop watching it."""
    policy = settings.update.max_seconds or shortest_update_seconds(settings)
    return policy + START_SECONDS


def bring(settings: Settings, state: State, config: str) -> tuple[list[Step], tuple[Call, ...]]:
    """Return the steps that bring the endpoint to `config`, and what failure must put back."""
    name, endpoint = settings.name, state.endpoint
    named = {"EndpointName": name}
    if endpoint is None or endpoint.status == "Failed":
        removal = Call("sagemaker", "delete_endpoint", named, f"the endpoint {name}")
        create = Call(
            "sagemaker",
            "create_endpoint",
            {
                **named,
                "EndpointConfigName": config,
                "Tags": [*tags(settings), remembering(history.served(state, config))],
            },
            f"the endpoint {name}",
            removal,
        )
        wait = Wait(name, "in service", START_SECONDS, config)
        if endpoint is None:
            return [create, wait], ()
        failed = Call("sagemaker", "delete_endpoint", named, f"the failed endpoint {name}")
        return [failed, Wait(name, "gone", START_SECONDS), create, wait], ()
    if endpoint.config == config and endpoint.status != "UpdateRollbackFailed":
        return [], ()
    kind = documents.kind(documents.variant(settings, ""))
    return update(settings, state, config, kind, guardrails.deployment_config(settings))


def update(
    settings: Settings, state: State, config: str, kind: str, policy: Document | None
) -> tuple[list[Step], tuple[Call, ...]]:
    """Return an update in place to `config`, whose variant runs on `kind` of instance.

    The count that scaling has reached is kept, unless the settings have no scaling and ask for
    another count than before. If the type of instance changes, AWS refuses the update of a scaled
    variant, and its scaling is taken away and put back around it.
    """
    before = (state.current.variants if state.current else {}).get(VARIANT)
    retype = bool(state.scaling) and before != kind
    recount = settings.scaling is None and counted(settings, state)
    retain = bool(state.scaling) and not retype and not recount
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


def smoke(settings: Settings) -> Call:
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


def remembering(value: str) -> Document:
    return {"Key": history.TAG, "Value": value}


def remembered(state: State, value: str) -> tuple[Call, ...]:
    """Return the call that notes which configs served and which failed, if that is news."""
    endpoint = state.endpoint
    if endpoint is None or endpoint.status == "Failed" or endpoint.tags.get(history.TAG) == value:
        return ()
    arguments = {"ResourceArn": endpoint.arn, "Tags": [remembering(value)]}
    return (Call("sagemaker", "add_tags", arguments, "what has served", effect="none"),)
