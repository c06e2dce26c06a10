"""An ECR repository's key, tags and other accounts: completed later, never taken away."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from deployment import registry, repositories
from deployment.aws import Cloud
from deployment.errors import Refused, Usage
from tests.deployment.conftest import REGION, ROOT, Moto

OTHER, THIRD = "210987654321", "321098765432"


@pytest.fixture
def cloud(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    for key, value in moto.environ.items():
        monkeypatch.setenv(key, value)
    return Cloud(REGION)


def wanted(key: str = "", tags: tuple[str, ...] = (), share: tuple[str, ...] = ()) -> Any:
    return repositories.asked(key, tags, share)


def policy(moto: Moto) -> list[dict[str, Any]]:
    found = moto.client("ecr").get_repository_policy(repositoryName="skserve")
    return list(json.loads(found["policyText"])["Statement"])


def test_a_new_repository_has_its_key_its_tags_and_its_readers(cloud: Cloud, moto: Moto) -> None:
    asked = wanted("arn:aws:kms:eu-west-1:123456789012:key/abc", ("team=wine",), (OTHER,))
    assert registry.ensure(cloud, "skserve", "", None, asked)

    ecr = moto.client("ecr")
    (found,) = ecr.describe_repositories()["repositories"]
    assert found["encryptionConfiguration"]["kmsKey"].endswith("key/abc")
    held = ecr.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
    assert held == [{"Key": "team", "Value": "wine"}]
    (statement,) = policy(moto)
    assert statement["Principal"] == {"AWS": [f"arn:aws:iam::{OTHER}:root"]}
    assert "ecr:BatchGetImage" in statement["Action"]
    assert not any("Put" in action for action in statement["Action"])


def test_one_that_exists_is_completed_and_nothing_is_taken_from_it(
    cloud: Cloud, moto: Moto
) -> None:
    registry.ensure(cloud, "skserve", "", None, wanted(share=(OTHER,)))
    theirs = {"Sid": "theirs", "Effect": "Allow", "Principal": "*", "Action": "ecr:ListImages"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [*policy(moto), theirs]})
    moto.client("ecr").set_repository_policy(repositoryName="skserve", policyText=text)

    assert not registry.ensure(cloud, "skserve", "", None, wanted(tags=("a=b",), share=(THIRD,)))

    statements = {one["Sid"]: one for one in policy(moto)}
    assert statements["theirs"] == theirs
    assert len(statements["skserve-pull"]["Principal"]["AWS"]) == 2
    calls = len(moto.calls)
    registry.ensure(cloud, "skserve", "", None, wanted(share=(THIRD, OTHER)))
    assert "SetRepositoryPolicy" not in moto.calls[calls:]
    with pytest.raises(Refused, match="never changes that"):
        registry.ensure(cloud, "skserve", "", None, wanted("abc"))


@pytest.mark.parametrize(("tags", "share"), [(("team",), ()), (("=x",), ()), ((), ("12",))])
def test_wrong_words_are_wrong_usage(tags: tuple[str, ...], share: tuple[str, ...]) -> None:
    with pytest.raises(Usage):
        wanted("", tags, share)


def test_what_is_for_ecr_is_refused_for_another_registry() -> None:
    done = subprocess.run(
        [str(ROOT / "build_and_push.sh"), "--registry", "localhost:1", "--share", OTHER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "--share is for a repository in ECR" in done.stderr
