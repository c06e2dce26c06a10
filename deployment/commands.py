"""What each word of `deploy.py` that changes an endpoint does. Reading words are in `views`.

Every function takes the shared `Words` and returns nothing: its result goes to stdout.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from deployment import apply_plan, console, difference, package, plan, preflight, survey, watch
from deployment.aws import Cloud
from deployment.errors import Failed, Refused, Usage
from deployment.findings import Look
from deployment.session import Words, carried_out, confirm, confirm_cost, connect, connect_or_assume
from deployment.settings import Settings
from deployment.state import State, Target
from deployment.step import Plan, Wait

_CHANGES = 2  # what --detailed-exitcode makes of a plan with changes, as Terraform does


def deploy(words: Words) -> int:
    """Make the endpoint what the settings say, or print how that would be done."""
    settings, talk = words.settings(), words.talk
    with TemporaryDirectory() as workspace:
        cloud = connect_or_assume(settings, talk) if words.dry_run else connect(settings)
        target, state = survey.look(cloud, settings, Path(workspace))
        planned = plan.deploy(target, state, adopt=words.adopt)
        if words.dry_run or cloud is None:
            return _print(planned, words, cloud, target, state)
        first = planned.steps[0] if planned.steps else None
        if isinstance(first, Wait):
            if not words.wait:
                raise Refused(f"{settings.name} is changing already", "run it without --no-wait")
            talk.say(f"{settings.name} is changing; waiting until that is over")
            watch.endpoint(cloud, first, talk, words.pace)
            state = survey.state(cloud, settings, target)
            planned = plan.deploy(target, state, adopt=words.adopt, resumed=True)
        for note in planned.notes:
            talk.warn(note)
        if planned.changes:
            preflight.run(Look(cloud, target, state, planned), talk, words.force)
            for line in console.reasons(planned):
                talk.say(line)
            confirm_cost(words, planned)
            apply_plan.apply(cloud, planned, talk, words.pace, words.wait)
        _finish(words, planned, cloud, settings)
        return 0


def _print(planned: Plan, words: Words, cloud: Cloud | None, target: Target, state: State) -> int:
    """Print a plan and return the exit code: that of a refusal where the real run would refuse."""
    talk = words.talk
    refused: list[str] = []
    if cloud is not None and planned.changes:
        findings = preflight.findings_of(Look(cloud, target, state, planned), talk)
        refused = [] if words.force else preflight.refusals(findings)
    value = {
        "endpoint": planned.endpoint,
        "assuming_nothing_exists": state.assumed,
        "plan": console.as_data(planned),
        "reasons": planned.reasons,
        "summary": difference.summary(planned),
        "notes": planned.notes,
        "refused": refused,
    }
    for note in planned.notes:
        talk.warn(note)
    talk.result(value, "\n".join([console.told(planned), *console.reasons(planned)]))
    if refused:
        talk.say("error: python deploy.py would refuse this plan: " + "; ".join(refused), "red")
        return Refused.exit_code
    return _CHANGES if words.detailed and planned.changes else 0


def _finish(words: Words, planned: Plan, cloud: Cloud, settings: Settings) -> None:
    talk = words.talk
    value = {"endpoint": planned.endpoint, "config": planned.config, "changed": planned.changes}
    if planned.changes and not words.wait:
        talk.result(value, f"{planned.endpoint}: under way to {planned.config}; "
                    "`python deploy.py` waits for it and does the rest")  # fmt: skip
        return
    if settings.smoke is None and planned.changes:
        talk.warn("not called once to try it: there is no [smoke] in endpoint.toml")
    told = "done" if planned.changes else "nothing to change"
    talk.result(value, f"{planned.endpoint}: {told}; in service with {planned.config}")
    if planned.changes:
        page = console.link(cloud.partition, cloud.region, f"endpoints/{planned.endpoint}")
        talk.say(f"console: {page}")


def pack(
    words: Words, model: str, code: str | None, choose: str, output: Path, example: Path | None
) -> None:
    """Write model.tar.gz."""
    packed = package.pack(Path(model), output, Path(code) if code else None, choose, example)
    value = {
        "path": str(packed.path),
        "digest": packed.digest,
        "model_sha256": packed.tree,
        "bytes": packed.size_bytes,
        "members": list(packed.members),
        "manifest": dict(packed.manifest),
    }
    saved = f", saved by scikit-learn {packed.sklearn}" if packed.sklearn else ""
    told = f"{len(packed.members)} members, {packed.size_bytes:,} bytes{saved}"
    words.talk.say(f"{told}: {', '.join(packed.members)}")
    known = f"{packed.path} sha256:{packed.digest}\nSKSERVE_MODEL_SHA256={packed.tree}"
    words.talk.result(value, known)


def rollback(words: Words, name: str = "") -> None:
    """Go back to the config `name`, or to the last good one before that in use."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings)
    planned = plan.rollback(settings, survey.state(cloud, settings), name)
    for note in planned.notes:
        talk.warn(note)
    if not carried_out(words, cloud, planned):
        return
    talk.say("the next `python deploy.py` applies endpoint.toml again")
    value = {"endpoint": planned.endpoint, "config": planned.config, "changed": True}
    where = "back in service" if words.wait else "on its way back"
    talk.result(value, f"{planned.endpoint}: {where} with {planned.config}")


def autoscale(words: Words, off: bool) -> None:
    """Set the scaling alone, or take it off."""
    settings, talk = words.settings(), words.talk
    written = words.written("scaling")
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
    if planned.changes and written is not None:
        talk.say("endpoint.toml has another [scaling]: put the same there, or the next "
                 "`python deploy.py` undoes it")  # fmt: skip
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
    apply_plan.apply(cloud, planned, talk, words.pace)
    left = survey.state(cloud, settings)
    if left.endpoint or left.configs or left.models or left.scaling or left.alarms:
        raise Failed(f"something of {settings.name} is still there", "run delete again")
    talk.say("jobs, logs, images and the archives in S3 stay")
    talk.result({"endpoint": settings.name, "changed": True}, f"{settings.name}: deleted")
