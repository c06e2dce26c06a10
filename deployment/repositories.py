"""What an ECR repository has beside its images: a key, tags, and other accounts that may pull.

Tags and accounts are added to a repository that exists; nothing of it is ever taken away, and its
key cannot change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployment.aws import Cloud
from deployment.errors import Refused, Usage

_SID = "skserve-pull"
_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]


@dataclass(frozen=True)
class Wanted:
    """What was asked for: a KMS key's ARN or id, tags, and accounts of twelve digits."""

    key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    accounts: tuple[str, ...] = ()


NOTHING = Wanted()


def asked(key: str, tags: tuple[str, ...], accounts: tuple[str, ...]) -> Wanted:
    """Read the words of the command line. Raises `Usage`."""
    for account in accounts:
        if not re.fullmatch(r"\d{12}", account):
            raise Usage(f"--share {account} is not twelve digits")
    for tag in tags:
        if not tag.partition("=")[0] or "=" not in tag:
            raise Usage(f"--repository-tag {tag} is not KEY=VALUE")
    named = {name: value for name, _, value in (tag.partition("=") for tag in tags)}
    return Wanted(key, named, tuple(dict.fromkeys(accounts)))


def made_with(wanted: Wanted) -> dict[str, Any]:
    """Return the arguments of CreateRepository that the wishes add."""
    given: dict[str, Any] = {}
    if wanted.key:
        given["encryptionConfiguration"] = {"encryptionType": "KMS", "kmsKey": wanted.key}
    if wanted.tags:
        given["tags"] = _listed(wanted.tags)
    return given


def complete(
    cloud: Cloud, found: Mapping[str, Any], wanted: Wanted, where: Mapping[str, str]
) -> None:
    """Give a repository that exists the tags and accounts it lacks. Raises `Refused` for a key."""
    name, held = found["repositoryName"], found.get("encryptionConfiguration") or {}
    key = str(held.get("kmsKey", ""))
    # ECR answers with the key's ARN, whatever it was made with.
    if wanted.key and wanted.key not in (key, key.rpartition("/")[2]):
        with_what = f"with the key {key}" if key else "without a KMS key"
        raise Refused(
            f"the repository {name} was made {with_what}, and ECR never changes that",
            "push to another --repository, or leave out --kms-key",
        )
    if wanted.tags:
        cloud.call("ecr", "tag_resource", resourceArn=found["repositoryArn"],
                   tags=_listed(wanted.tags))  # fmt: skip
    share(cloud, name, wanted, where)


def share(cloud: Cloud, name: str, wanted: Wanted, where: Mapping[str, str]) -> None:
    """Let the accounts pull, beside all that the repository's policy allows already."""
    if not wanted.accounts:
        return
    found = cloud.find("ecr", "get_repository_policy", repositoryName=name, **where)
    text = found["policyText"] if found else '{"Version": "2012-10-17", "Statement": []}'
    policy: dict[str, Any] = json.loads(text)
    written = policy.get("Statement", [])
    statements: list[dict[str, Any]] = [written] if isinstance(written, dict) else written
    others = [one for one in statements if one.get("Sid") != _SID]
    before: set[str] = set()
    for one in statements:
        named = one["Principal"]["AWS"] if one.get("Sid") == _SID else []
        before |= {named} if isinstance(named, str) else set(named)
    roots = [f"arn:{cloud.partition}:iam::{account}:root" for account in wanted.accounts]
    statement = {
        "Sid": _SID,
        "Effect": "Allow",
        "Principal": {"AWS": sorted({*before, *roots})},
        "Action": _PULL,
    }
    after = {**policy, "Statement": [*others, statement]}
    if after != policy:
        cloud.call("ecr", "set_repository_policy", repositoryName=name,
                   policyText=json.dumps(after), **where)  # fmt: skip


def _listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
