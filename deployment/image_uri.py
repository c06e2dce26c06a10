"""The parts of an image's URI in ECR. Pure."""

from __future__ import annotations

import re

_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.(?P<suffix>[a-z.-]+)/"
    r"(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def ecr_parts(uri: str) -> dict[str, str] | None:
    """Split an ECR URI into account, region, suffix, repository, tag and digest; else None."""
    match = _ECR.fullmatch(uri)
    return {key: value or "" for key, value in match.groupdict().items()} if match else None
