"""What IAM policies allow, compared: what a role lacks, and what a new document would take away.

Pure. Only Allow statements that name actions and resources are understood; others cover nothing
and are never dropped. A Deny, a boundary or a bucket's own policy may change the answer, so what is
missing here is a warning, not a verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

Document = Mapping[str, Any]


class Grant(NamedTuple):
    """One action on one resource; `condition` is its JSON, empty without one."""

    action: str
    resource: str
    condition: str

    def covers(self, other: Grant) -> bool:
        """Say whether this grant allows all that `other` does."""
        return (
            fnmatchcase(other.action.lower(), self.action.lower())
            and fnmatchcase(other.resource, self.resource)
            and self.condition in ("", other.condition)
        )


def missing(needed: Document, held: Iterable[Document]) -> list[Grant]:
    """Return the grants of `needed` that no document of `held` allows."""
    have = [grant for document in held for one in _statements(document) for grant in _grants(one)]
    wanted = [grant for one in _statements(needed) for grant in _grants(one)]
    return [grant for grant in wanted if not any(own.covers(grant) for own in have)]


def told(lacking: list[Grant]) -> str:
    """Name the first few grants, and how many more there are."""
    shown = [f"{grant.action} on {grant.resource}" for grant in lacking[:3]]
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return ", ".join(shown) + more


def merged(new: Document, old: Document) -> dict[str, Any]:
    """Return `new` with the statements of `old` that hold something `new` does not allow."""
    kept: list[dict[str, Any]] = []
    for statement in _statements(old):
        grants = list(_grants(statement))
        same = any(_bare(statement) == _bare(one) for one in _statements(new))
        if not same and (not grants or missing({"Statement": [statement]}, [new])):
            kept.append({**statement, "Sid": f"Kept{len(kept) + 1}"})
    return {**new, "Statement": [*_statements(new), *kept]}


def trusts(document: Document, account: str, service: str = "sagemaker.amazonaws.com") -> bool:
    """Say whether a trust policy lets `service` assume the role on behalf of `account`."""
    return any(
        statement.get("Effect") == "Allow"
        and service in _listed((statement.get("Principal") or {}), "Service")
        and any(fnmatchcase("sts:AssumeRole", one) for one in _listed(statement, "Action"))
        and _accepts(statement.get("Condition") or {}, account)
        for statement in _statements(document)
    )


def _accepts(condition: Mapping[str, Any], account: str) -> bool:
    """Say whether a condition on the source account, which we understand, names `account`."""
    for operator in ("StringEquals", "StringLike"):
        keys = {key.lower(): key for key in condition.get(operator) or {}}
        if key := keys.get("aws:sourceaccount"):
            accepted = _listed(condition[operator], key)
            return any(fnmatchcase(account, one) for one in accepted)
    return True


def _statements(document: Document) -> list[dict[str, Any]]:
    found = document.get("Statement") or []
    return [found] if isinstance(found, dict) else list(found)


def _listed(holder: Any, key: str) -> list[str]:
    value = holder.get(key) or [] if isinstance(holder, Mapping) else []
    return [value] if isinstance(value, str) else list(value)


def _grants(statement: Document) -> Iterator[Grant]:
    if statement.get("Effect") != "Allow":
        return
    condition = statement.get("Condition")
    text = json.dumps(condition, sort_keys=True) if condition else ""
    for action in _listed(statement, "Action"):
        for resource in _listed(statement, "Resource"):
            yield Grant(action, resource, text)


def _bare(statement: Document) -> dict[str, Any]:
    return {key: value for key, value in statement.items() if key != "Sid"}
