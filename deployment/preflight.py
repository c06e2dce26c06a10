"""What can be known to fail before anything bills, checked one by one.

A check yields findings: `ok`, `unknown` (it could not be looked up), `warn`, or `refuse`, which
ends the run with exit code 3 unless `--force` turns it into a warning.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from deployment import image as images
from deployment import price
from deployment.aws import Cloud
from deployment.combinations import architecture
from deployment.console import Talk
from deployment.errors import ApiError, DeployError, Refused, Unauthorised, Unreachable
from deployment.state import State, Target

Level = Literal["ok", "unknown", "warn", "refuse"]


@dataclass(frozen=True)
class Finding:
    level: Level
    subject: str
    text: str
    hint: str = ""


Check = Callable[[Cloud, Target, State], Iterator[Finding]]


def run(cloud: Cloud, target: Target, state: State, talk: Talk, force: bool) -> list[Finding]:
    """Make every check and tell what was found. Raises `Refused`, listing all that refuses."""
    findings = [finding for check in CHECKS for finding in _checked(check, cloud, target, state)]
    for finding in findings:
        style = {"ok": "green", "unknown": "dim", "warn": "yellow", "refuse": "red"}[finding.level]
        hint = f" ({finding.hint})" if finding.hint and finding.level != "ok" else ""
        talk.say(f"{finding.level:>8}  {finding.subject}: {finding.text}{hint}", style)
    refused = [finding for finding in findings if finding.level == "refuse"]
    if refused and not force:
        told = "\n".join(f"{finding.subject}: {finding.text}" for finding in refused)
        raise Refused(told, refused[0].hint + "; --force goes on all the same")
    return findings


def _checked(check: Check, cloud: Cloud, target: Target, state: State) -> list[Finding]:
    """Run a check; not being allowed to look is a finding, not a failure."""
    try:
        return list(check(cloud, target, state))
    except Unauthorised as error:
        if not error.code.startswith("AccessDenied"):
            raise
        return [Finding("unknown", check.__name__.strip("_"), error.message)]
    except (ApiError, Unreachable) as error:
        return [Finding("unknown", check.__name__.strip("_"), error.message)]


def _credentials(cloud: Cloud, target: Target, state: State) -> Iterator[Finding]:
    yield Finding("ok", "credentials", f"{cloud.identity['Arn']} in {cloud.region}")


def _role(cloud: Cloud, target: Target, state: State) -> Iterator[Finding]:
    name = target.role.rsplit("/", 1)[-1]
    found = cloud.find("iam", "get_role", RoleName=name)
    if found is None:
        yield Finding("refuse", "role", f"there is no role {name}",
                      "python deploy.py role --create")  # fmt: skip
        return
    trust = found["Role"].get("AssumeRolePolicyDocument") or {}
    if isinstance(trust, str):
        trust = json.loads(unquote(trust))
    if "sagemaker.amazonaws.com" in json.dumps(trust):
        yield Finding("ok", "role", f"{name} trusts SageMaker")
    else:
        yield Finding("refuse", "role", f"{name} does not let sagemaker.amazonaws.com assume it",
                      "put the trust policy of `python deploy.py role` on it")  # fmt: skip


def _bucket(cloud: Cloud, target: Target, state: State) -> Iterator[Finding]:
    bucket = target.bucket
    if target.source.package is None:
        bucket = target.source.uri.split("/")[2]
    elif not state.bucket_exists:
        yield Finding("ok", "bucket", f"{bucket} will be made")
        return
    found = cloud.call("s3", "get_bucket_location", Bucket=bucket)["LocationConstraint"]
    region = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}.get(found, found)
    if region == cloud.region:
        yield Finding("ok", "bucket", f"{bucket} is in {region}")
    else:
        text = f"{bucket} is in {region}, the endpoint in {cloud.region}"
        yield Finding("refuse", "bucket", text, "use a bucket in the endpoint's region")


def _image(cloud: Cloud, target: Target, state: State) -> Iterator[Finding]:
    parts = images.ecr_parts(target.image)
    if parts is None:
        yield Finding("warn", "image", f"{target.image} is not in ECR and was not looked at",
                      "push it with ./build_and_push.sh")  # fmt: skip
        return
    if parts["region"] != cloud.region:
        yield Finding("refuse", "image", f"it is in {parts['region']}, the endpoint in "
                      f"{cloud.region}", "push it to the endpoint's region")  # fmt: skip
        return
    found = images.in_ecr(cloud, target.image)
    needed = architecture(target.settings.instance_type)
    faults = list(images.faults(found, needed))
    for text, hint in faults:
        yield Finding("refuse", "image", text, hint)
    if not found.architecture:
        yield Finding("unknown", "image", "its architecture could not be read")
    elif not faults:
        yield Finding("ok", "image", f"linux/{found.architecture}, {found.digest[:19]}")
    yield from _versions(found, target)


def _versions(found: images.Image, target: Target) -> Iterator[Finding]:
    """Compare the scikit-learn of the image with the one that pickled the model."""
    there = found.labels.get(images.LABEL, "")
    saved = target.source.package.sklearn if target.source.package else None
    if not there or not saved:
        missing = "the image" if not there else "the model"
        yield Finding("unknown", "scikit-learn", f"{missing} does not say its version")
    elif _minor(there) == _minor(saved):
        yield Finding("ok", "scikit-learn", f"{there} in the image, {saved} in the model")
    else:
        yield Finding("refuse", "scikit-learn", f"the model was saved by {saved} and the image has "
                      f"{there}", "build the image with ./build_and_push.sh -- --build-arg "
                      f"SKLEARN={_minor(saved)}, or save the model again")  # fmt: skip


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _instances(cloud: Cloud, target: Target, state: State) -> Iterator[Finding]:
    wanted = target.settings.instance_type
    if wanted is None:
        return
    known = cloud.values("sagemaker", "ProductionVariantInstanceType")
    if wanted not in known:
        near = ", ".join(difflib.get_close_matches(wanted, known, 3)) or "none is near"
        yield Finding(
            "warn", "instance", f"{wanted} is not a hosting type that boto3 knows: {near}"
        )
    yield from _quota(cloud, wanted, target.settings.machines.count)


def _quota(cloud: Cloud, wanted: str, count: int) -> Iterator[Finding]:
    name = f"{wanted} for endpoint usage"
    quotas = cloud.pages("service-quotas", "list_service_quotas", "Quotas", ServiceCode="sagemaker")
    try:
        found = next((quota["Value"] for quota in quotas if quota["QuotaName"] == name), None)
    except DeployError:
        found = None
    if found is None:
        yield Finding("unknown", "quota", f"of {wanted}")
    elif found < count:
        text = f"{found:g} of {wanted} are allowed, {count} are asked for"
        yield Finding("refuse", "quota", text, f"ask AWS to raise the quota {name!r}")
    else:
        yield Finding("ok", "quota", f"{found:g} of {wanted}; an update runs old and new together")


def _price(cloud: Cloud, target: Target, state: State) -> Iterator[Finding]:
    wanted = target.settings.instance_type
    if wanted is None:
        yield Finding("unknown", "price", "serverless is billed by use; not computed here")
        return
    hourly = price.hourly(cloud, wanted)
    level: Level = "unknown" if hourly == "unknown" else "ok"
    count = target.settings.machines.count
    yield Finding(level, "price", f"{count} x {wanted}, each {hourly} per hour")


CHECKS: tuple[Check, ...] = (_credentials, _role, _bucket, _image, _instances, _price)
