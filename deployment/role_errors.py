"""What a refusal of SageMaker that speaks of the role means: a role too young, or one that lacks.

AWS has one sentence for both: "Could not access model data ... ensure that the role exists and that
its trust relationship policy allows sts:AssumeRole ... also ensure that the role has s3:GetObject".
Which of them it is, the role's age and its policies tell.
"""

from __future__ import annotations

from datetime import UTC, datetime

from deployment import grants, iam
from deployment.aws import Cloud
from deployment.errors import ApiError, DeployError
from deployment.grants import Grant
from deployment.step import Call

_OPERATIONS = ("create_model", "create_training_job")
_YOUNG_SECONDS = 300.0  # a role is known everywhere within minutes
_PATIENCE_SECONDS = 120.0


def late_role(cloud: Cloud, call: Call, error: ApiError, passed: float) -> str:
    """Return what is waited for, if the role is too young to be known everywhere; else nothing.

    Where the role lacks a permission that the call needs, the error's message says so.
    """
    text = error.message.lower()
    if call.operation not in _OPERATIONS or "role" not in text:
        return ""
    if "assume" not in text and "access model data" not in text:
        return ""
    arn = str(call.arguments.get("ExecutionRoleArn") or call.arguments.get("RoleArn", ""))
    try:
        role = iam.find(cloud, arn.rsplit("/", 1)[-1])
    except DeployError:
        return ""
    if role is None:
        return ""
    lacking = [one for one in _reads(call, cloud.partition)
               if grants.missing(_allow(one), role.documents)]  # fmt: skip
    if "getobject" in text and lacking:
        error.message = f"the role {role.name} lacks {grants.told(lacking)}: {error.message}"
        error.hint = "give it what this endpoint needs: python deploy.py role --create"
        return ""
    young = role.created is not None and _age(role.created) < _YOUNG_SECONDS
    return "the role is not known everywhere yet" if young and passed < _PATIENCE_SECONDS else ""


def _age(created: datetime) -> float:
    return (datetime.now(UTC) - created).total_seconds()


def _reads(call: Call, partition: str) -> list[Grant]:
    """Return what the role must read for the call: the model's archive."""
    uri = str((call.arguments.get("PrimaryContainer") or {}).get("ModelDataUrl", ""))
    path = uri.removeprefix("s3://")
    return [Grant("s3:GetObject", f"arn:{partition}:s3:::{path}", "")] if path else []


def _allow(grant: Grant) -> grants.Document:
    return {
        "Statement": [
            {"Effect": "Allow", "Action": grant.action, "Resource": grant.resource},
        ]
    }
