"""What is mistyped is answered with what was seen and the way out, before anything is made."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest
from botocore import exceptions

from deployment import aws
from deployment.errors import Unreachable, Usage
from deployment.payload import payload
from tests.deployment.conftest import Moto, Shell, make_image, make_role, settings_file

SLIPS = [
    (("plan", "--profile", "nope"), 2, "profile (nope) could not be found", "~/.aws/config"),
    (("plan", "--region", "mars"), 2, "there is no region 'mars'", "near it are: none"),
    (("plan", "--role", "nope"), 3, "there is no role nope", "role --create"),
    (
        ("plan", "--role", "arn:aws:iam::999999999999:role/skserve"),
        3,
        "role/skserve is in account 999999999999, and SageMaker takes roles of its own account",
        "a role of this account",
    ),
    (("plan", "--role", "arn:nope"), 2, "'arn:nope' is not a role: its name, PATH/NAME, or", ""),
    (("plan", "--bucket", "BAD_Bucket"), 3, "BAD_Bucket is no name that S3 takes", ""),
    (("plan", "--model", "modl.joblib"), 3, "modl.joblib", "endpoint.toml, model.joblib"),
    (("plan", "--code", "model.joblib"), 3, "model.joblib is no Python file", "inference.py"),
    (("plan", "--instance-type", "m5.large"), 2, "'m5.large' is not an instance type, such as", ""),
    (("plan", "--name", "-x"), 2, "'-x' is not a name of at most 63 letters", ""),
    (("plan", "-f", "nope.toml"), 2, "nope.toml cannot be read: No such file", ""),
    (("stauts",), 2, "No such command 'stauts'. Did you mean 'status'?", ""),
    (("status",), 1, "there is no endpoint wine in eu-west-1", "list --all"),
    (("invoke", "nope.csv"), 2, "nope.csv cannot be read: No such file", ""),
    (("transform", "s3://nope/x.csv"), 1, "there is no bucket nope", ""),
    (("train", "--follow", "nope"), 1, "there is no training job nope in eu-west-1", ""),
]


@pytest.mark.parametrize(("words", "code", "said", "way_out"), SLIPS, ids=lambda value: str(value))
def test_a_slip_is_told(
    words: tuple[str, ...], code: int, said: str, way_out: str, moto: Moto, shell: Shell,
    folder: Path,
) -> None:  # fmt: skip
    make_role(moto)
    settings_file(folder, make_image(moto))
    before = moto.sent

    told = " ".join(shell(*words, code=code).err.split())

    assert said in told
    assert way_out in told
    assert "Errno" not in told
    assert moto.sent == before


def test_a_bucket_that_the_settings_name_is_made_with_a_warning(
    moto: Moto, shell: Shell, folder: Path
) -> None:
    make_role(moto)
    settings_file(folder, make_image(moto), bucket="my-bukket")

    assert "warn bucket: there is no my-bukket, and it will be made" in " ".join(
        shell("plan").err.split()
    )


def test_a_call_without_a_body_at_a_terminal_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        with pytest.raises(Usage, match="nothing is given to send"):
            payload(None, None, "")
    os.close(leader)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.EndpointConnectionError(endpoint_url="u"),
        exceptions.ConnectTimeoutError(endpoint_url="u"),
        exceptions.ReadTimeoutError(endpoint_url="u"),
        exceptions.ConnectionClosedError(endpoint_url="u"),
    ],
)
def test_no_connection_is_no_answer_so_a_wait_survives_it(error: Exception) -> None:
    assert isinstance(aws.told(error, "sagemaker", "describe_endpoint"), Unreachable)


def test_a_local_cloud_that_does_not_run_is_named() -> None:
    here = exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:5099/")
    there = exceptions.EndpointConnectionError(endpoint_url="https://sts.amazonaws.com/")

    assert "start `make cloud`" in aws.told(here, "sts", "get_caller_identity").hint
    assert aws.told(there, "sts", "get_caller_identity").hint == ""


def test_an_error_of_the_container_is_a_sentence_and_its_hint() -> None:
    body = ('{"error": {"code": "bad_request", "message": "Row 1 has 2 values, expected 4.", '
            '"hint": "Send four.", "request_id": "42"}}')  # fmt: skip
    answer = {"Error": {"Code": "ModelError"}, "OriginalStatusCode": 400, "OriginalMessage": body}
    error = exceptions.ClientError(answer, "InvokeEndpoint")

    told = aws.told(error, "sagemaker-runtime", "invoke_endpoint")

    assert told.message == (
        "the container answered 400: Row 1 has 2 values, expected 4. (request 42)"
    )
    assert told.hint == "Send four."
