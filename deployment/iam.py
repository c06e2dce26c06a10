"""A role as IAM tells it, with all of its policies. Only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from deployment.aws import Cloud


@dataclass(frozen=True)
class Role:
    """A role as IAM tells it: its trust, its inline policies by name, and those attached to it."""

    name: str
    arn: str
    tags: Mapping[str, str]
    trust: Mapping[str, Any]
    created: datetime | None = None
    boundary: str = ""
    inline: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attached: tuple[Mapping[str, Any], ...] = ()

    @property
    def documents(self) -> list[Mapping[str, Any]]:
        """All that the role is allowed, as policy documents."""
        return [*self.inline.values(), *self.attached]


def find(cloud: Cloud, name: str) -> Role | None:
    """Read a role and all of its policies; None where there is none."""
    answer = cloud.find("iam", "get_role", RoleName=name)
    if answer is None:
        return None
    found = answer["Role"]
    named = {"RoleName": name}
    inline = {
        policy: _document(cloud.call("iam", "get_role_policy", **named, PolicyName=policy)
                          ["PolicyDocument"])
        for policy in cloud.pages("iam", "list_role_policies", "PolicyNames", **named)
    }  # fmt: skip
    attached = cloud.pages("iam", "list_attached_role_policies", "AttachedPolicies", **named)
    return Role(
        name=name,
        arn=found["Arn"],
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags") or ()},
        trust=_document(found.get("AssumeRolePolicyDocument") or {}),
        created=found.get("CreateDate"),
        boundary=(found.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn", ""),
        inline=inline,
        attached=tuple(_managed(cloud, policy["PolicyArn"]) for policy in attached),
    )


def _managed(cloud: Cloud, arn: str) -> Mapping[str, Any]:
    version = cloud.call("iam", "get_policy", PolicyArn=arn)["Policy"]["DefaultVersionId"]
    found = cloud.call("iam", "get_policy_version", PolicyArn=arn, VersionId=version)
    return _document(found["PolicyVersion"]["Document"])


def _document(found: Any) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(unquote(found)) if isinstance(found, str) else found
    return document
