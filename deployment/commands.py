"""What each word of `deploy.py` that changes an endpoint does. Reading words are in `views`.

Every function takes the shared `Words` and returns nothing: its result goes to stdout.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from deployment import console, execution, package, plan, policies, preflight, survey, watch
from deployment.aws import Cloud
from deployment.errors import Failed, Refused, Usage
from deployment.session import Words, carried_out, confirm, connect, connect_or_assume
from deployment.settings import Settings
from deployment.state import State, Target
from deployment.step import Plan, Wait


def deploy(words: Words) -> None:
    """Make the endpoint what the settings say, or print how that would be done."""
    settings, talk = words.settings(), words.talk
    with TemporaryDirectory() as workspace:
        cloud = connect_or_assume(settings, talk) if words.dry_run else connect(settings)
        target = survey.target(cloud, settings, Path(workspace))
        state = survey.state(cloud, settings, target)
        planned = plan.deploy(target, state, adopt=words.adopt)
        if words.dry_run or cloud is None:
            _print(planned, words, cloud, target, state)
            return
        first = planned.steps[0] if planned.steps else None
        if isinstance(first, Wait):
            talk.say(f"{settings.name} is changing; waiting until that is over")
            watch.endpoint(cloud, first, talk, words.pace)
            state = survey.state(cloud, settings, target)
            planned = plan.deploy(target, state, adopt=words.adopt, resumed=True)
        if not planned.changes:
            _finish(words, planned, settings, "nothing to change")
            return
        preflight.run(cloud, target, state, talk, words.force)
        execution.apply(cloud, planned, talk, words.pace)
        _finish(words, planned, settings, "done")


def _print(planned: Plan, words: Words, cloud: Cloud | None, target: Target, state: State) -> None:
    if cloud is not None and planned.changes:
        preflight.run(cloud, target, state, words.talk, force=True)
    value = {
        "endpoint": planned.endpoint,
        "assuming_nothing_exists": state.assumed,
        "plan": console.as_data(planned),
    }
    words.talk.result(value, console.told(planned))


def _finish(words: Words, planned: Plan, settings: Settings, told: str) -> None:
    if settings.smoke is None and planned.changes:
        words.talk.warn("not called once to try it: there is no [smoke] in endpoint.toml")
    value = {"endpoint": planned.endpoint, "config": planned.config, "changed": planned.changes}
    words.talk.result(value, f"{planned.endpoint}: {told}; in service with {planned.config}")


def pack(words: Words, model: str, code: str | None, choose: str, output: Path) -> None:
    """Write model.tar.gz."""
    packed = package.pack(Path(model), output, Path(code) if code else None, choose)
    value = {
        "path": str(packed.path),
        "digest": packed.digest,
        "bytes": packed.size_bytes,
        "members": list(packed.members),
        "manifest": dict(packed.manifest),
    }
    saved = f", saved by scikit-learn {packed.sklearn}" if packed.sklearn else ""
    told = f"{len(packed.members)} members, {packed.size_bytes:,} bytes{saved}"
    words.talk.say(f"{told}: {', '.join(packed.members)}")
    words.talk.result(value, f"{packed.path} sha256:{packed.digest}")


def role(words: Words, create: bool) -> None:
    """Print the trust policy and permissions of the execution role, or make it."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings) if create else connect_or_assume(settings, talk)
    partition, account = (cloud.partition, cloud.account) if cloud else ("aws", "ACCOUNT")
    region = cloud.region if cloud else settings.region or "REGION"
    trust = policies.trust(partition, account if cloud else "")
    permissions = policies.permissions(settings, partition, region, account)
    if not create or cloud is None:
        talk.result({"trust": trust, "permissions": permissions})
        return
    name = settings.role.rsplit("/", 1)[-1]
    if not name:
        raise Refused("the role has no name yet", "set role in endpoint.toml, or --role NAME")
    exists = cloud.find("iam", "get_role", RoleName=name) is not None
    planned = policies.create(settings, name, (trust, permissions), exists)
    if not carried_out(words, cloud, planned):
        return
    arn = survey.role_arn(cloud, name)
    talk.result({"role": arn}, arn)


def rollback(words: Words) -> None:
    """Go back to the newest kept config older than the one in use."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings)
    planned = plan.rollback(settings, survey.state(cloud, settings))
    if not carried_out(words, cloud, planned):
        return
    talk.say("the next `python deploy.py` applies endpoint.toml again")
    value = {"endpoint": planned.endpoint, "config": planned.config, "changed": True}
    talk.result(value, f"{planned.endpoint}: back in service with {planned.config}")


def autoscale(words: Words, off: bool) -> None:
    """Set the scaling alone, or take it off."""
    settings, talk = words.settings(), words.talk
    if off:
        settings = settings.model_copy(update={"scaling": None})
    elif settings.scaling is None:
        raise Usage(
            "no scaling is given", "set [scaling] in endpoint.toml, or --min, --max, --target"
        )
    cloud = connect(settings)
    planned = plan.autoscale(settings, survey.state(cloud, settings))
    if not carried_out(words, cloud, planned):
        return
    if planned.changes:
        talk.say("put the same into [scaling], or the next `python deploy.py` undoes it")
    told = "no scaling" if off else "scaling set" if planned.changes else "nothing to change"
    value = {"endpoint": settings.name, "changed": planned.changes}
    talk.result(value, f"{settings.name}: {told}")


def delete(words: Words) -> None:
    """Remove the endpoint and everything that carries its tag."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings)
    planned = plan.delete(settings.name, survey.state(cloud, settings))
    if words.dry_run:
        talk.result(console.as_data(planned), console.told(planned))
        return
    if not planned.changes:
        talk.result({"endpoint": settings.name, "changed": False},
                    f"{settings.name}: nothing of it exists")  # fmt: skip
        return
    confirm(words, planned)
    execution.apply(cloud, planned, talk, words.pace)
    left = survey.state(cloud, settings)
    if left.endpoint or left.configs or left.models or left.scaling or left.alarms:
        raise Failed(f"something of {settings.name} is still there", "run delete again")
    talk.say("jobs, logs, images and the archives in S3 stay")
    talk.result({"endpoint": settings.name, "changed": True}, f"{settings.name}: deleted")
