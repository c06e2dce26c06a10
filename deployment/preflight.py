"""What can be known to fail before anything bills, checked one by one.

A check yields findings: `ok`, `unknown` (it could not be looked up), `warn`, or `refuse`, which
ends the run with exit code 3 unless `--force` turns it into a warning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from deployment import grants, iam, image_checks, policies, price, quota
from deployment.console import Talk
from deployment.errors import ApiError, DeployError, Refused, Unauthorised, Unreachable
from deployment.findings import Check, Finding, Look

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def run(look: Look, talk: Talk, force: bool) -> None:
    """Make every check and tell what was found. Raises `Refused`, listing all that refuses."""
    findings = findings_of(look, talk)
    refused = [finding for finding in findings if finding.level == "refuse"]
    if refused and not force:
        hint = refused[0].hint + "; --force goes on all the same"
        raise Refused("\n".join(refusals(findings)), hint)


def refusals(findings: list[Finding]) -> list[str]:
    """Return a line for each finding that refuses."""
    return [f"{one.subject}: {one.text}" for one in findings if one.level == "refuse"]


def findings_of(look: Look, talk: Talk) -> list[Finding]:
    """Make every check, tell and return what was found."""
    findings = [finding for check in CHECKS for finding in _checked(check, look)]
    for finding in findings:
        style = {"ok": "green", "unknown": "dim", "warn": "yellow", "refuse": "red"}[finding.level]
        hint = f" ({finding.hint})" if finding.hint and finding.level != "ok" else ""
        talk.say(f"{finding.level:>8}  {finding.subject}: {finding.text}{hint}", style)
    return findings


def _checked(check: Check, look: Look) -> list[Finding]:
    """Run a check; not being allowed to look is a finding, not a failure."""
    try:
        return list(check(look))
    except Unauthorised as error:
        if not error.code.startswith("AccessDenied"):
            raise
        return [_unknown(check, error)]
    except (ApiError, Unreachable) as error:
        return [_unknown(check, error)]


def _unknown(check: Check, error: DeployError) -> Finding:
    return Finding("unknown", check.__name__.strip("_"), error.message.splitlines()[0])


def _credentials(look: Look) -> Iterator[Finding]:
    yield Finding("ok", "credentials", f"{look.cloud.identity['Arn']} in {look.cloud.region}")


def _role(look: Look) -> Iterator[Finding]:
    name = look.target.role.rsplit("/", 1)[-1]
    account = look.target.role.split(":")[4]
    if account != look.target.account:
        text = (f"{look.target.role} is in account {account}, and SageMaker takes roles of its "
                f"own account, {look.target.account}, only")  # fmt: skip
        yield Finding("refuse", "role", text, "name a role of this account")
        return
    found = iam.find(look.cloud, name)
    if found is None:
        yield Finding("refuse", "role", f"there is no role {name}",
                      "python deploy.py role --create")  # fmt: skip
        return
    if not grants.trusts(found.trust, look.target.account):
        yield Finding("refuse", "role", f"{name} does not let sagemaker.amazonaws.com assume it",
                      "put the trust policy of `python deploy.py role` on it")  # fmt: skip
        return
    needed = policies.permissions(
        look.target.settings, look.cloud.partition, look.cloud.region, look.target.account
    )
    lacking = grants.missing(needed, found.documents)
    if not lacking:
        yield Finding("ok", "role", f"{name} trusts SageMaker, and may do what is needed")
        return
    yield Finding("ok", "role", f"{name} trusts SageMaker")
    yield Finding("warn", "permissions", f"{name} lacks {grants.told(lacking)}, unless another "
                  "policy allows it", "python deploy.py role --create")  # fmt: skip


def _bucket(look: Look) -> Iterator[Finding]:
    target, settings = look.target, look.target.settings
    if target.source.package is not None and not look.state.bucket_exists:
        yield from _new_bucket(target.bucket, settings.bucket is not None)
    elif target.source.kind != "package":
        bucket = target.bucket if target.source.package else target.source.uri.split("/")[2]
        yield from _region(look, "bucket", bucket)
    beside = {
        "async.output": settings.async_ and settings.async_.output,
        "async.failure": settings.async_ and settings.async_.failure,
        "capture.destination": settings.capture and settings.capture.destination,
    }
    for subject, uri in beside.items():
        if uri and uri.split("/")[2] != target.bucket:
            yield from _region(look, subject, uri.split("/")[2])


def _new_bucket(name: str, named: bool) -> Iterator[Finding]:
    """Judge a bucket that is to be made; one that the settings name may be a slip."""
    if not _BUCKET.fullmatch(name):
        yield Finding("refuse", "bucket", f"{name} is no name that S3 takes",
                      "3 to 63 lower-case letters, digits, hyphens and dots")  # fmt: skip
    elif named:
        yield Finding("warn", "bucket", f"there is no {name}, and it will be made", "is it the "
                      "name that you meant?")  # fmt: skip
    else:
        yield Finding("ok", "bucket", f"{name} will be made")


def _region(look: Look, subject: str, bucket: str) -> Iterator[Finding]:
    answer = look.cloud.find("s3", "get_bucket_location", Bucket=bucket)
    if answer is None:
        yield Finding("warn", subject, f"there is no bucket {bucket}", "make it before the calls")
        return
    found = answer["LocationConstraint"]
    region = {None: "us-east-1", "": "us-east-1", "EU": "eu-west-1"}.get(found, found)
    if region == look.cloud.region:
        yield Finding("ok", subject, f"{bucket} is in {region}")
    else:
        text = f"{bucket} is in {region}, the endpoint in {look.cloud.region}"
        yield Finding("refuse", subject, text, "use a bucket in the endpoint's region")


def _instances(look: Look) -> Iterator[Finding]:
    wanted = look.target.settings.instance_type
    if wanted is None:
        return
    known = look.cloud.values("sagemaker", "ProductionVariantInstanceType")
    if wanted not in known:
        near = ", ".join(difflib.get_close_matches(wanted, known, 3)) or "none is near"
        yield Finding(
            "warn", "instance", f"{wanted} is not a hosting type that boto3 knows: {near}"
        )
    for kind in quota.fleet(look.target.settings, look.state):
        yield from _quota(look, kind)


def _quota(look: Look, kind: str) -> Iterator[Finding]:
    settings = look.target.settings
    allowed = quota.allowed(look.cloud, kind)
    wanted = quota.fleet(settings, look.state)[kind]
    hint = f"ask AWS to raise the quota {quota.name(kind)!r}"
    if allowed is None:
        yield Finding("unknown", "quota", f"of {kind}")
        return
    if allowed < wanted:
        text = f"{allowed:g} of {kind} are allowed, {wanted} are asked for"
        yield Finding("refuse", "quota", text, hint)
        return
    more = quota.at_once(settings, look.planned, wanted)
    used = quota.in_use(look.cloud, kind) if more else 0
    if used + more > allowed:
        text = (f"{allowed:g} of {kind} are allowed, {used} are in use, and {more} more are needed "
                "at once: an update runs old and new together")  # fmt: skip
        yield Finding("refuse", "quota", text, f"{hint}, or use --policy rolling")
        return
    yield Finding("ok", "quota", f"{allowed:g} of {kind}, {used} in use, {more} more needed now")
    if settings.scaling is not None and kind == settings.instance_type:
        most = used + settings.scaling.most - (wanted if look.state.endpoint else 0)
        if most > allowed:
            text = f"scaling goes up to {settings.scaling.most}, and only {allowed:g} are allowed"
            yield Finding("warn", "quota", text, hint)


def _price(look: Look) -> Iterator[Finding]:
    settings = look.target.settings
    if settings.instance_type is None:
        yield Finding("unknown", "price", "serverless is billed by use; not computed here")
        return
    known, text = price.told(look.cloud, settings)
    yield Finding("ok" if known else "unknown", "price", text)


def _telemetry(look: Look) -> Iterator[Finding]:
    """Say whether the account keeps the container's metrics: it is switched on once for all."""
    settings = look.target.settings
    if settings.metrics is None or not settings.metrics.detailed:
        return
    asked = (("observabilityadmin", "get_telemetry_enrichment_status"),
             ("cloudwatch", "get_o_tel_enrichment"))  # fmt: skip
    for service, operation in asked:
        status = look.cloud.once(service, operation).get("Status", "unknown")
        if status != "Running":
            yield Finding("warn", "telemetry", f"enrichment is {status}, so the container's "
                          "metrics are kept nowhere", "turn it on once for the account: aws "
                          "cloudwatch start-otel-enrichment, and aws observabilityadmin "
                          "start-telemetry-enrichment")  # fmt: skip
            return
    yield Finding("ok", "telemetry", "enrichment is on: metrics are kept, and answer PromQL")


CHECKS: tuple[Check, ...] = (
    *(_credentials, _role, _bucket, image_checks.package, image_checks.image),
    *(_instances, _price, _telemetry),
)
