"""What each word of `deploy.py` that changes something does. Reading words are in `views`.

Every function takes the shared `Words` and returns nothing: its result goes to stdout, and a
`DeployError` becomes a sentence and an exit code in `run`, the one place where that happens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deployment import (
    combinations,
    console,
    execution,
    package,
    plan,
    policies,
    preflight,
    survey,
    watch,
)
from deployment import settings as files
from deployment.aws import Cloud
from deployment.console import Talk
from deployment.errors import DeployError, Failed, Refused, Unauthorised, Usage
from deployment.settings import Settings
from deployment.state import State, Target
from deployment.step import Plan, Wait
from deployment.watch import Pace

DEFAULT_FILE = Path("endpoint.toml")


@dataclass(frozen=True)
class Words:
    """The options that all words share, as given."""

    file: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    machine: bool = False
    dry_run: bool = False
    force: bool = False
    adopt: bool = False
    yes: bool = False
    poll: float = 15.0

    @property
    def talk(self) -> Talk:
        return Talk(self.machine)

    @property
    def pace(self) -> Pace:
        return Pace(self.poll)

    def settings(self) -> Settings:
        """Load and check the settings. Raises `Usage` or `Refused`, naming the line."""
        path = self.file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)
        if path is None and "name" not in self.overrides:
            raise Usage(
                f"there is no {DEFAULT_FILE} in this folder, and no --name",
                f"copy examples/{DEFAULT_FILE} here, and set name, model, image and role",
            )
        loaded = files.load(path, _from_here(self.overrides))
        text = path.read_text(encoding="utf-8") if path else ""

        def place(key: str) -> str:
            return f"{files.where(text, key.split('.'), path, self.overrides)}: "

        combinations.check(loaded, place)
        return loaded


def _from_here(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Make paths given by flags absolute: they are meant from here, the file's from its folder."""
    paths = {
        key: str(Path(value).absolute())
        for key, value in overrides.items()
        if key in ("model", "code") and value and not value.startswith("s3://")
    }
    return {**overrides, **paths}


def run(work: Callable[[], None], talk: Talk) -> int:
    """Do the work of a word and return its exit code."""
    try:
        work()
    except DeployError as error:
        talk.say(f"error: {error.message}", "red")
        if error.hint:
            talk.say(f"way out: {error.hint}")
        if talk.machine:
            talk.result({"error": error.message, "hint": error.hint, "exit_code": error.exit_code})
        return error.exit_code
    except KeyboardInterrupt:
        talk.say("interrupted; what AWS has begun goes on: look with `python deploy.py status`")
        return 1
    return 0


def connect(settings: Settings) -> Cloud:
    """Open the account, and prove the credentials before anything else."""
    cloud = Cloud(settings.region, settings.profile)
    _ = cloud.identity
    return cloud


def _connect_or_assume(settings: Settings, talk: Talk) -> Cloud | None:
    """Open the account; None without credentials, where a plan can still be made."""
    try:
        return connect(settings)
    except (Unauthorised, Usage) as error:
        if isinstance(error, Unauthorised) and error.code:
            raise  # there are credentials, and they are refused: that is a failure
        talk.warn(f"{error.message}: the plan is made assuming nothing exists")
        return None


def deploy(words: Words) -> None:
    """Make the endpoint what the settings say, or print how that would be done."""
    settings, talk = words.settings(), words.talk
    with TemporaryDirectory() as workspace:
        cloud = _connect_or_assume(settings, talk) if words.dry_run else connect(settings)
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
    cloud = connect(settings) if create else _connect_or_assume(settings, talk)
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


def carried_out(words: Words, cloud: Cloud, planned: Plan) -> bool:
    """Apply the plan, or print it if that is all that was asked; say whether it was applied."""
    if words.dry_run:
        words.talk.result(console.as_data(planned), console.told(planned))
        return False
    execution.apply(cloud, planned, words.talk, words.pace)
    return True


def confirm(words: Words, planned: Plan) -> None:
    """Ask before what cannot be undone; in a pipe nobody can be asked."""
    if words.yes:
        return
    words.talk.say(console.told(planned))
    if not sys.stdin.isatty():
        raise Usage("deleting needs a yes", "run it again with --yes")
    sys.stderr.write("delete all of this? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Usage("not confirmed; nothing was deleted")
