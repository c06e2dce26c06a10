"""The execution role: who may assume it, and the least that this endpoint needs. Pure documents.

The facts are in the contract, section 7.8. A star stands only where the API has nothing to name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from deployment.image_uri import ecr_parts, of_account
from deployment.logs import GROUP
from deployment.settings import Settings
from deployment.state import OWNER_TAG
from deployment.step import Call, Plan

Document = dict[str, Any]
SHARED = "skserve-endpoint"  # what earlier versions called the policy, of any endpoint


def trust(partition: str, account: str) -> Document:
    """Return who may assume the role: SageMaker, on behalf of this account."""
    suffix = "amazonaws.com"  # the service's name is the same in every partition
    statement: Document = {
        "Effect": "Allow",
        "Principal": {"Service": f"sagemaker.{suffix}"},
        "Action": "sts:AssumeRole",
    }
    if account:
        # Without this, another account's SageMaker could be made to use our role.
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
    return {"Version": "2012-10-17", "Statement": [statement]}


def permissions(settings: Settings, partition: str, region: str, account: str) -> Document:
    """Return what a container, and SageMaker on its behalf, must be able to do."""
    arn = f"arn:{partition}"
    statements = [
        *_objects(settings, arn, region, account),
        _allow(
            "Logs",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents",
             "logs:DescribeLogStreams"],
            [f"{arn}:logs:{region}:{account}:log-group:{group}{tail}"
             for group in (GROUP.format(name=settings.name), "/aws/sagemaker/TransformJobs",
                           "/aws/sagemaker/TrainingJobs")
             for tail in ("", ":log-stream:*")],
        ),
        _allow("Metrics", ["cloudwatch:PutMetricData"], ["*"])
        | {"Condition": {"StringLike": {"cloudwatch:namespace": ["AWS/SageMaker",
                                                                 "/aws/sagemaker/*"]}}},
        _allow("Login", ["ecr:GetAuthorizationToken"], ["*"]),
        *_image(settings, arn, region, account),
        *_optional(settings),
    ]  # fmt: skip
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(name: str, actions: list[str], resources: list[str]) -> Document:
    return {"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resources}


def _objects(settings: Settings, arn: str, region: str, account: str) -> list[Document]:
    home = f"s3://{settings.bucket_in(region, account)}/{settings.home}/"
    reads = [home]
    many = (settings.models and settings.models.prefix) or ""
    shadow = settings.shadow.model if settings.shadow else ""
    variants = [variant.model for variant in settings.variants.values()]
    named = (settings.model, shadow, many, *variants)
    reads += [uri for uri in named if uri.startswith("s3://")]
    reads += [uri for uri in settings.environment.values() if uri.startswith("s3://")]
    writes = [home]  # where batch transform puts its output
    if settings.async_ is not None:
        writes += [settings.async_.output, *([settings.async_.failure or ""])]
        reads.append(settings.async_.output)
    inputs = list(settings.access.read)
    writes += settings.access.write
    if settings.train is not None:
        inputs += [uri for uri in settings.train.channels.values() if uri.startswith("s3://")]
        places = [uri for uri in (settings.train.output, settings.train.checkpoints) if uri]
        reads, writes = reads + places, writes + places  # checkpoints come back after a restart
    if settings.capture is not None:
        writes.append(settings.capture.destination)
    buckets = {uri.split("/")[2] for uri in reads + inputs + writes if uri}
    allowed = [_below(arn, uri) for uri in reads] + [_beginning(arn, uri) for uri in inputs]
    return [
        _allow("Read", ["s3:GetObject"], list(dict.fromkeys(allowed))),
        _allow("Write", ["s3:PutObject", "s3:AbortMultipartUpload"],
               [_below(arn, uri) for uri in dict.fromkeys(writes) if uri]),
        _allow("List", ["s3:ListBucket"], [f"{arn}:s3:::{bucket}" for bucket in sorted(buckets)]),
    ]  # fmt: skip


def _below(arn: str, uri: str) -> str:
    """Name an object, or everything below a prefix."""
    path = uri.removeprefix("s3://")
    whole = path.endswith((".tar.gz", ".joblib", ".pkl", ".pickle", ".skops"))
    return f"{arn}:s3:::{path}" if whole else f"{arn}:s3:::{path.rstrip('/')}/*"


def _beginning(arn: str, uri: str) -> str:
    """Name all objects whose keys begin so: what SageMaker reads for a channel or a batch job."""
    return f"{arn}:s3:::{uri.removeprefix('s3://')}*"


def _image(settings: Settings, arn: str, region: str, account: str) -> list[Document]:
    variants = [variant.image or "" for variant in settings.variants.values()]
    images = [settings.image, (settings.shadow.image or "") if settings.shadow else "",
              settings.train.image if settings.train else "", *variants]  # fmt: skip
    found = [parts for parts in map(ecr_parts, images) if parts]
    own = [re.split("[:@]", image)[0] for image in images if of_account(image)]
    if not settings.image:  # not pushed yet: where build_and_push.sh will put it
        own.append("skserve")
    found += [{"region": region, "account": account, "repository": name} for name in own]
    resources = [
        f"{arn}:ecr:{p['region']}:{p['account']}:repository/{p['repository']}" for p in found
    ]
    actions = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
    return [_allow("Image", actions, list(dict.fromkeys(resources)))] if resources else []


def _optional(settings: Settings) -> list[Document]:
    """Return what only some settings need."""
    statements = []
    if settings.vpc is not None:
        actions = ["CreateNetworkInterface", "CreateNetworkInterfacePermission",
                   "DeleteNetworkInterface", "DeleteNetworkInterfacePermission",
                   "DescribeNetworkInterfaces", "DescribeVpcs", "DescribeDhcpOptions",
                   "DescribeSubnets", "DescribeSecurityGroups"]  # fmt: skip
        # The interfaces do not exist yet, and the Describe calls take no resource.
        statements.append(_allow("Vpc", [f"ec2:{action}" for action in actions], ["*"]))
    keys = [key for key in (settings.kms.volume, settings.kms.output, settings.kms.bucket) if key]
    if any(key.startswith("arn:") for key in keys):
        actions = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:CreateGrant",
                   "kms:DescribeKey"]  # fmt: skip
        named = [key for key in dict.fromkeys(keys) if key.startswith("arn:")]
        statements.append(_allow("Keys", actions, named))
    if settings.update.alarms or settings.update.error_rate or settings.update.latency_ms:
        # DescribeAlarms is asked without a name by the deployment guardrails.
        statements.append(_allow("Alarms", ["cloudwatch:DescribeAlarms"], ["*"]))
    topics = settings.async_ and [settings.async_.success_topic, settings.async_.error_topic]
    if named_topics := [topic for topic in topics or () if topic]:
        statements.append(_allow("Topics", ["sns:Publish"], named_topics))
    return statements


def policy_name(endpoint: str) -> str:
    """Return the name of the endpoint's own policy in the role."""
    return f"{SHARED}-{endpoint}"


def endpoint_of(document: Mapping[str, Any]) -> str:
    """Return the endpoint whose log group a policy of ours names; nothing where there is none."""
    found = set(re.findall(GROUP.format(name=r"([A-Za-z0-9-]+)"), json.dumps(document)))
    return found.pop() if len(found) == 1 else ""


def put(role: str, policy: str, document: Mapping[str, Any]) -> Call:
    """Return the call that writes an inline policy."""
    text = json.dumps(document, sort_keys=True)
    inline = {"RoleName": role, "PolicyName": policy, "PolicyDocument": text}
    return Call("iam", "put_role_policy", inline, f"its permissions, as the policy {policy}")


def remove(role: str, policy: str) -> Call:
    """Return the call that removes an inline policy."""
    gone = {"RoleName": role, "PolicyName": policy}
    return Call("iam", "delete_role_policy", gone, f"the policy {policy}")


def create(
    settings: Settings, role: str, documents: tuple[Document, Document], exists: bool = False
) -> Plan:
    """Plan a new role with its trust and permissions; of one that exists, the permissions alone."""
    trusted, permitted = documents
    path = settings.role.rpartition("/")[0].strip("/")
    tags = {**settings.tags, OWNER_TAG: settings.name}
    arguments: Document = {
        "RoleName": role,
        "AssumeRolePolicyDocument": json.dumps(trusted, sort_keys=True),
        "Description": f"what the SageMaker endpoint {settings.name} may do",
        "Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)],
    }
    if path and not settings.role.startswith("arn:"):
        arguments["Path"] = f"/{path}/"
    if settings.permissions_boundary:
        arguments["PermissionsBoundary"] = settings.permissions_boundary
    undo = Call("iam", "delete_role", {"RoleName": role}, f"the role {role}")
    made = Call("iam", "create_role", arguments, f"the role {role}", undo)
    written = put(role, policy_name(settings.name), permitted)
    return Plan(settings.name, (written,) if exists else (made, written))
