"""Which images ECR may expire: the oldest beyond a number, but none that a model is pinned to.

ECR expires an image by one rule only, and never by a rule below one whose tags it matches. So
images in use are tagged with a prefix of their own, and the first rule, which never applies, claims
them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deployment.aws import Cloud
from deployment.errors import ApiError, Unauthorised
from deployment.image_uri import ecr_parts

PREFIX = "in-use-"
_NEVER = 100_000  # more images than a repository may hold


def policy(keep: int) -> dict[str, Any]:
    """Return ECR's rules that keep the newest `keep` images, and all that are in use."""
    used = {"tagStatus": "tagged", "tagPrefixList": [PREFIX]}
    return {
        "rules": [
            _rule(2, f"keep the newest {keep}", {"tagStatus": "any"}, keep),
            _rule(1, "keep what models are pinned to", used, _NEVER),
        ]
    }


def _rule(priority: int, text: str, which: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {
        "rulePriority": priority,
        "description": text,
        "selection": {**which, "countType": "imageCountMoreThan", "countNumber": count},
        "action": {"type": "expire"},
    }


def protect(cloud: Cloud, repository: str, where: Mapping[str, str]) -> list[str]:
    """Tag what models of this account and region are pinned to, if ECR may expire it.

    A policy of ours from before this rule existed gets it. Returns the digests in use.
    """
    try:
        found = cloud.find("ecr", "get_lifecycle_policy", repositoryName=repository, **where)
    except Unauthorised:
        return []  # who may not look may not have set one either
    before = json.loads(found["lifecyclePolicyText"]) if found else {}
    counts = list(_counts(before))
    if not counts:
        return []
    used = sorted(set(_pinned(cloud, repository, where.get("registryId") or cloud.account)))
    tagged = _tagged(cloud, repository, where)
    for digest in used:
        if digest not in tagged.values():
            _tag(cloud, repository, where, digest)
    stale = [{"imageTag": tag} for tag, digest in tagged.items() if digest not in used]
    if stale:
        cloud.call("ecr", "batch_delete_image", repositoryName=repository, imageIds=stale, **where)
    after = policy(min(counts))
    if after != before:
        cloud.call("ecr", "put_lifecycle_policy", repositoryName=repository,
                   lifecyclePolicyText=json.dumps(after), **where)  # fmt: skip
    return used


def _counts(found: Mapping[str, Any]) -> Iterator[int]:
    """Yield the count of our rule; a policy made elsewhere is left to who made it."""
    for rule in found.get("rules", ()):
        if str(rule.get("description", "")).startswith("keep the newest "):
            yield int(rule["selection"]["countNumber"])


def _pinned(cloud: Cloud, repository: str, account: str) -> Iterator[str]:
    for summary in cloud.pages("sagemaker", "list_models", "Models"):
        found = cloud.find("sagemaker", "describe_model", ModelName=summary["ModelName"]) or {}
        containers = [found.get("PrimaryContainer") or {}, *(found.get("Containers") or ())]
        for container in containers:
            parts = ecr_parts(container.get("Image", ""))
            if parts and (parts["account"], parts["repository"]) == (account, repository):
                yield from [parts["digest"]] if parts["digest"] else []


def _tagged(cloud: Cloud, repository: str, where: Mapping[str, str]) -> dict[str, str]:
    listed = cloud.pages("ecr", "list_images", "imageIds", repositoryName=repository, **where)
    return {
        one["imageTag"]: one["imageDigest"]
        for one in listed
        if one.get("imageTag", "").startswith(PREFIX)
    }


def _tag(cloud: Cloud, repository: str, where: Mapping[str, str], digest: str) -> None:
    answer = cloud.call("ecr", "batch_get_image", repositoryName=repository,
                        imageIds=[{"imageDigest": digest}], **where)  # fmt: skip
    for image in answer.get("images", ()):
        try:
            cloud.call("ecr", "put_image", repositoryName=repository,
                       imageManifest=image["imageManifest"],
                       imageTag=f"{PREFIX}{digest.partition(':')[2][:12]}", **where)  # fmt: skip
        except ApiError as error:
            if error.code != "ImageAlreadyExistsException":
                raise
