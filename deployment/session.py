"""What the words of `deploy.py` share: their options, the account they open, and how a plan ends.

A `DeployError` becomes a sentence and an exit code in `run`, the one place where that happens.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployment import apply_plan, combinations, console
from deployment import settings as files
from deployment.aws import Cloud
from deployment.console import Talk
from deployment.errors import DeployError, NoRegion, Unauthorised, Usage
from deployment.settings import Settings
from deployment.step import Call, Plan
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
    wait: bool = True  # off: leave once AWS has taken up the change
    detailed: bool = False  # a plan that changes something exits with 2

    @property
    def talk(self) -> Talk:
        return Talk(self.machine)

    @property
    def pace(self) -> Pace:
        return Pace(self.poll)

    @property
    def path(self) -> Path | None:
        """The settings file, None where there is none."""
        return self.file or (DEFAULT_FILE if DEFAULT_FILE.exists() else None)

    def written(self, key: str) -> Any:
        """Return what the file itself holds under `key` at its top, None where it holds nothing."""
        text = self.path.read_text(encoding="utf-8") if self.path else ""
        return tomllib.loads(text).get(key)

    def settings(self) -> Settings:
        """Load and check the settings. Raises `Usage` or `Refused`, naming the line."""
        path = self.path
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


def run(work: Callable[[], int | None], talk: Talk) -> int:
    """Do the work of a word and return its exit code, 0 where the word gives none."""
    try:
        return work() or 0
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


def connect(settings: Settings) -> Cloud:
    """Open the account, and prove the credentials before anything else."""
    cloud = Cloud(settings.region, settings.profile)
    _ = cloud.identity
    return cloud


def connect_or_assume(settings: Settings, talk: Talk) -> Cloud | None:
    """Open the account; None without credentials, where a plan can still be made."""
    try:
        return connect(settings)
    except (Unauthorised, NoRegion) as error:
        if isinstance(error, Unauthorised) and error.code:
            raise  # there are credentials, and they are refused or broken: that is a failure
        talk.warn(f"{error.message}: the plan is made assuming nothing exists")
        return None


def carried_out(words: Words, cloud: Cloud, planned: Plan) -> bool:
    """Apply the plan, or print it if that is all that was asked; say whether it was applied."""
    if words.dry_run:
        words.talk.result(console.as_data(planned), console.told(planned))
        return False
    apply_plan.apply(cloud, planned, words.talk, words.pace, words.wait)
    return True


def confirm(words: Words, planned: Plan) -> None:
    """Ask before what cannot be undone; without a terminal --yes is needed."""
    if words.yes:
        return
    words.talk.say(console.told(planned))
    if not sys.stdin.isatty():
        raise Usage("deleting needs a yes", "run it again with --yes")
    _ask("delete all of this?", "nothing was deleted")


def confirm_cost(words: Words, planned: Plan) -> None:
    """Ask at a terminal before what bills; a pipeline has decided by running the command."""
    bills = [step for step in planned.steps if isinstance(step, Call)
             and step.operation == "create_endpoint"]  # fmt: skip
    if bills and not words.yes and sys.stdin.isatty():
        _ask("make it? it bills from then on", "nothing was made; --yes does not ask")


def _ask(question: str, otherwise: str) -> None:
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Usage(f"not confirmed; {otherwise}")
