"""How an image is named: its URI in ECR, or a repository of this account. Pure."""

from __future__ import annotations

import re

_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z.-]+)/"
    r"(?P<repository>[a-z0-9][a-z0-9._/-]+)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def ecr_parts(uri: str) -> dict[str, str] | None:
    """Split an ECR URI into account, region, suffix, repository, tag and digest; else None."""
    match = _ECR.fullmatch(uri)
    return {key: value or "" for key, value in match.groupdict().items()} if match else None


def of_account(image: str) -> bool:
    """Say whether `image` names no registry, as `skserve` or `skserve:TAG`: Docker's own rule."""
    host, slash, _ = image.partition("/")
    return bool(image) and not (slash and (host == "localhost" or "." in host or ":" in host))


def in_account(image: str, account: str, region: str, suffix: str = "amazonaws.com") -> str:
    """Return the URI of `image`: in the ECR of that account and region if it names no registry."""
    return f"{account}.dkr.ecr.{region}.{suffix}/{image}" if of_account(image) else image
