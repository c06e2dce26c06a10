"""Preflight's checks of what an endpoint runs: its image, or the model package that names one."""

from __future__ import annotations

from collections.abc import Iterator

from deployment import image as images
from deployment import model_packages
from deployment.combinations import architecture
from deployment.findings import Finding, Look
from deployment.image_uri import ecr_parts
from deployment.state import Target


def package(look: Look) -> Iterator[Finding]:
    """Refuse a version of a registered model that may not be deployed."""
    source = look.target.source
    if source.kind != "package":
        return
    found = model_packages.describe(look.cloud, source.uri)
    status = found.get("ModelApprovalStatus", "unknown")
    if status == model_packages.APPROVED:
        yield Finding("ok", "model package", f"{source.uri.rpartition(':')[2]} is approved")
    else:
        text = f"{source.uri} is {status}, and AWS deploys approved versions only"
        yield Finding("refuse", "model package", text, model_packages.approval(source.uri))


def image(look: Look) -> Iterator[Finding]:
    """Say whether the image is where SageMaker takes it from, and made for the instances."""
    uri = look.target.image
    parts = ecr_parts(uri)
    if parts is None and look.target.settings.vpc is None:
        yield Finding("refuse", "image", f"{uri} is not in ECR, and SageMaker pulls from other "
                      "registries through a VPC only",
                      "push it with ./build_and_push.sh, or set [vpc]")  # fmt: skip
        return
    if parts is None:
        yield Finding("warn", "image", f"{uri} is not in ECR and was not looked at; it is pulled "
                      "through the VPC")  # fmt: skip
        return
    if look.target.settings.serverless is not None and parts["account"] != look.target.account:
        yield Finding("refuse", "image", f"it is in account {parts['account']}, and a serverless "
                      f"endpoint takes images of its own account, {look.target.account}, only",
                      "push it to this account with ./build_and_push.sh")  # fmt: skip
        return
    if parts["region"] != look.cloud.region:
        yield Finding("refuse", "image", f"it is in {parts['region']}, the endpoint in "
                      f"{look.cloud.region}", "push it to the endpoint's region")  # fmt: skip
        return
    found = images.in_ecr(look.cloud, uri)
    needed = architecture(look.target.settings.instance_type)
    faults = list(images.faults(found, needed))
    for text, hint in faults:
        yield Finding("refuse", "image", text, hint)
    if not found.architecture:
        yield Finding("unknown", "image", "its architecture could not be read")
    elif not faults:
        yield Finding("ok", "image", f"linux/{found.architecture}, {found.digest[:19]}")
    yield from _versions(found, look.target)


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
