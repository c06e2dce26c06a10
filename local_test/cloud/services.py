"""moto's S3, IAM, CloudWatch, Logs, SNS and Auto Scaling, as the cloud itself uses them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import Any

from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ecr.models import ecr_backends
from moto.iam.models import iam_backends
from moto.logs.models import logs_backends
from moto.s3.models import s3_backends
from moto.sagemaker.models import sagemaker_backends
from moto.sns.models import sns_backends

ACCOUNT = DEFAULT_ACCOUNT_ID
ROLE = "skserve"  # the execution role that examples/endpoint.toml names
_PARTITION = "aws"
_LINE_LIMIT = 256 * 1024  # bytes of one event in CloudWatch Logs


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of s3://BUCKET/KEY."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


class Services:
    """The account's other services, in one region."""

    def __init__(self, region: str) -> None:
        self.region = region
        self._log_lock = Lock()
        self.changed: Callable[[str], None] = lambda service: None  # called with what was written

    # ---- S3

    def read(self, uri: str) -> bytes | None:
        """Return an object's content, None where there is none."""
        found = self._key(uri)
        return None if found is None else bytes(found.value)

    def etag(self, uri: str) -> str | None:
        """Return an object's ETag, None where there is no such object."""
        found = self._key(uri)
        return None if found is None else str(found.etag)

    def _key(self, uri: str) -> Any:
        bucket, key = split_uri(uri)
        found = s3_backends[ACCOUNT][_PARTITION].buckets.get(bucket)
        return found and found.keys.get(key)

    def keys(self, uri: str) -> list[str]:
        """Return the URIs of the objects whose key begins as `uri` does, in order."""
        bucket, prefix = split_uri(uri)
        found = s3_backends[ACCOUNT][_PARTITION].buckets.get(bucket)
        names = list(found.keys) if found is not None else ()
        return [f"s3://{bucket}/{name}" for name in sorted(names) if name.startswith(prefix)]

    def write(self, uri: str, content: bytes) -> None:
        """Put an object. Raises `LookupError` where the bucket does not exist."""
        bucket, key = split_uri(uri)
        storage = s3_backends[ACCOUNT][_PARTITION]
        if bucket not in storage.buckets:
            raise LookupError(f"the bucket {bucket} does not exist")
        storage.put_object(bucket, key, content)
        self.changed("s3")

    # ---- IAM

    def set_up(self) -> None:
        """Make the execution role, which an account in use has.

        Its tag lets `deploy.py role --create` add to it; no permission is enforced here.
        """
        trusted = {"Effect": "Allow", "Action": "sts:AssumeRole",
                   "Principal": {"Service": "sagemaker.amazonaws.com"}}  # fmt: skip
        allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        iam = iam_backends[ACCOUNT][_PARTITION]
        iam.create_role(ROLE, _policy(trusted), "/", None, "the role of this local cloud",
                        [{"Key": "skserve:endpoint", "Value": "any"}], None, None)  # fmt: skip
        iam.put_role_policy(ROLE, "everything", _policy(allowed))
        self.changed("iam")

    def role_fault(self, arn: str) -> str:
        """Say why SageMaker cannot assume the role, "" if it can."""
        roles = iam_backends[ACCOUNT][_PARTITION].roles.values()
        found = next((role for role in roles if role.arn == arn), None)
        if found is not None and _trusts(found.assume_role_policy_document):
            return ""
        return (
            f"Could not assume role {arn}. Please ensure that the role exists and allows "
            "principal 'sagemaker.amazonaws.com' to assume the role."
        )

    # ---- ECR

    def repository(self, name: str) -> Any:
        """Return moto's repository of that name, or None."""
        return ecr_backends[ACCOUNT][self.region].repositories.get(name)

    # ---- model packages

    def model_package(self, arn: str) -> Any:
        """Return moto's model package of that ARN, or None."""
        return sagemaker_backends[ACCOUNT][self.region].model_packages.get(arn)

    # ---- CloudWatch and its logs

    def log(self, group: str, stream: str, lines: Iterable[str]) -> None:
        """Append lines to a stream, made at its first line."""
        backend = logs_backends[ACCOUNT][self.region]
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line[:_LINE_LIMIT] or " "} for line in lines]
        if not events:
            return
        with self._log_lock:
            backend.ensure_log_group(group)
            backend.ensure_log_stream(group, stream)
            backend.put_log_events(group, stream, events)

    def alarms(self) -> list[Any]:
        """Return moto's alarms."""
        return list(cloudwatch_backends[ACCOUNT][self.region].alarms.values())

    def has_alarm(self, name: str) -> bool:
        return name in cloudwatch_backends[ACCOUNT][self.region].alarms

    def alarming(self, names: Iterable[str]) -> list[str]:
        """Return those of the alarms that are in ALARM."""
        known = cloudwatch_backends[ACCOUNT][self.region].alarms
        return [name for name in names if name in known and known[name].state_value == "ALARM"]

    # ---- SNS

    def notify(self, topic: str, message: Mapping[str, Any]) -> None:
        """Publish to a topic that exists; AWS says nothing either where it does not."""
        backend = sns_backends[ACCOUNT][self.region]
        if topic in backend.topics:
            backend.publish(json.dumps(message), arn=topic)

    # ---- Application Auto Scaling

    def targets(self) -> Iterator[Any]:
        """Yield the scalable targets of SageMaker."""
        known = applicationautoscaling_backends[ACCOUNT][self.region].targets
        for by_resource in list(known.values()):
            for target in list(by_resource.values()):
                if target.service_namespace == "sagemaker":
                    yield target

    def policies(self, resource: str, dimension: str) -> list[Any]:
        """Return the policies of a scalable target."""
        known = applicationautoscaling_backends[ACCOUNT][self.region].policies
        return [
            policy for policy in list(known.values())
            if (policy.resource_id, policy.scalable_dimension) == (resource, dimension)
        ]  # fmt: skip

    def scheduled(self) -> list[Any]:
        """Return the scheduled actions of SageMaker whose target is registered."""
        known = applicationautoscaling_backends[ACCOUNT][self.region].scheduled_actions
        there = {(one.resource_id, one.scalable_dimension) for one in self.targets()}
        return [one for one in list(known) if (one.resource_id, one.scalable_dimension) in there]

    def bound(self, action: Any) -> None:
        """Give a target the bounds of a scheduled action."""
        given = action.scalable_target_action or {}
        for target in self.targets():
            if (target.resource_id, target.scalable_dimension) == (
                action.resource_id, action.scalable_dimension
            ):  # fmt: skip
                target.min_capacity = given.get("MinCapacity", target.min_capacity)
                target.max_capacity = given.get("MaxCapacity", target.max_capacity)
        self.changed("applicationautoscaling")

    def forget_targets(self, endpoint: str) -> None:
        """Deregister what scales an endpoint, as its deletion does."""
        backend = applicationautoscaling_backends[ACCOUNT][self.region]
        here = f"endpoint/{endpoint}/"
        backend.scheduled_actions = [
            one for one in backend.scheduled_actions if not one.resource_id.startswith(here)
        ]
        for target in list(self.targets()):
            if target.resource_id.startswith(here):
                where = (target.service_namespace, target.resource_id, target.scalable_dimension)
                for policy in self.policies(target.resource_id, target.scalable_dimension):
                    backend.delete_scaling_policy(policy.policy_name, *where)
                backend.deregister_scalable_target(*where)


def _policy(statement: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _trusts(document: Any) -> bool:
    policy = json.loads(document) if isinstance(document, str) else document or {}
    for statement in _list(policy.get("Statement")):
        principals = _list(statement.get("Principal", {}).get("Service"))
        actions = _list(statement.get("Action"))
        if (
            statement.get("Effect") == "Allow"
            and "sagemaker.amazonaws.com" in principals
            and "sts:AssumeRole" in actions
        ):
            return True
    return False


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
