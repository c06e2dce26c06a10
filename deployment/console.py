"""What the user sees: results on stdout, talk and progress on stderr.

On a terminal, progress is one live line; in a pipe, a plain line for each change and, so that a log
shows life, one every minute. With `--json` the result on stdout is JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from deployment.difference import summary
from deployment.step import Call, Plan, Wait

_LIFE_SECONDS = 60.0


class Talk:
    """The two streams. `machine` makes every result JSON."""

    def __init__(self, machine: bool = False) -> None:
        self.machine = machine
        # Results are data: nothing may wrap them, or a pasted ARN would be broken in two.
        self._out = Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self._err = Console(file=sys.stderr, soft_wrap=True, highlight=False)

    def say(self, text: str, style: str = "") -> None:
        """Say something on stderr."""
        self._err.print(escape(text), style=style or None)

    def warn(self, text: str) -> None:
        """Say something on stderr that needs attention."""
        self.say(text, "yellow")

    def result(self, value: Any, text: str | None = None) -> None:
        """Print the result: `value` for machines, `text` for people."""
        if self.machine or text is None:
            sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
        else:
            self._out.print(escape(text))
        sys.stdout.flush()

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Print rows as a table for people, as a list for machines."""
        if self.machine:
            self.result(list(rows))
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, no_wrap=True)
        for row in rows:
            table.add_row(*(escape(str(row[column])) for column in columns))
        self._out.print(table)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show a line that changes while something is waited for."""
        if not self._err.is_terminal:
            yield Progress(self, None)
            return
        with self._err.status("") as status:
            yield Progress(self, status)


class Progress:
    """One changing line, or in a pipe a line for each change."""

    def __init__(self, talk: Talk, status: Status | None) -> None:
        self._talk, self._status = talk, status
        self._last, self._said_at = "", -_LIFE_SECONDS

    def show(self, text: str, seconds: float) -> None:
        """Show `text`, `seconds` after the beginning."""
        line = f"{text} ({int(seconds) // 60}:{int(seconds) % 60:02d})"
        if self._status is not None:
            self._status.update(escape(line))
        elif text != self._last or seconds - self._said_at >= _LIFE_SECONDS:
            self._talk.say(f"  {line}")
            self._last, self._said_at = text, seconds


def told(plan: Plan) -> str:
    """Return the plan as text: each step with its arguments."""
    if not plan.changes:
        return f"nothing to change: {plan.endpoint} is what it should be"
    return "\n".join(f"{number}. {_step(step)}" for number, step in enumerate(plan.steps, 1))


def reasons(plan: Plan) -> list[str]:
    """Return why the plan changes something, and how many things, a line each."""
    if not plan.changes:
        return []
    counted = summary(plan)
    why = ["because of:", *(f"  {line}" for line in plan.reasons)] if plan.reasons else []
    return [*why, ", ".join(f"{number} to {kind}" for kind, number in counted.items())]


_CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


def link(partition: str, region: str, page: str) -> str:
    """Return the address of a page of SageMaker in the AWS console, for example endpoints/wine."""
    host = _CONSOLES.get(partition, f"{region}.console.aws.amazon.com")
    return f"https://{host}/sagemaker/home?region={region}#/{page}"


def _step(step: Call | Wait) -> str:
    if isinstance(step, Wait):
        wanted = f" with {step.config}" if step.config else ""
        return f"wait until {step.endpoint} is {step.until}{wanted}"
    arguments = json.dumps(_shown(step), indent=2, ensure_ascii=False).replace("\n", "\n   ")
    return f"{step.service} {step.operation}: {step.why}\n   {arguments}"


def _shown(step: Call) -> dict[str, Any]:
    body = {"Body": f"<{step.file.name}>"} if step.file else {}
    return {**step.arguments, **body}


def as_data(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan as JSON values."""
    return [
        {"wait": step.until, "endpoint": step.endpoint, "config": step.config}
        if isinstance(step, Wait)
        else {"service": step.service, "operation": step.operation, "arguments": _shown(step)}
        for step in plan.steps
    ]
