"""AWS misbehaves: each fault ends in its documented state, and leaves nothing unsaid behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployment.conftest import Moto, Shell, make_image, make_role, save_model, settings_file
from tests.deployment.test_story import leftovers

SMOKE = '[smoke]\nbody = "1,2"\n'


@pytest.fixture
def ready(moto: Moto, folder: Path) -> Moto:
    """A role, an image and a settings file: all that a deployment needs."""
    make_role(moto)
    settings_file(folder, make_image(moto), SMOKE)
    return moto


@pytest.fixture
def serving(ready: Moto, shell: Shell) -> str:
    """An endpoint in service; its config's name."""
    return str(shell.change("--json").json["config"])


def serves(moto: Moto) -> str:
    """Return the config that wine serves with."""
    found = moto.client("sagemaker").describe_endpoint(EndpointName="wine")
    assert found["EndpointStatus"] == "InService"
    return str(found["EndpointConfigName"])


def test_throttling_is_waited_out(ready: Moto, shell: Shell) -> None:
    ready.fault("CreateModel", "ThrottlingException", "Rate exceeded", times=2)
    ready.fault("DescribeEndpoint", "ThrottlingException", "Rate exceeded", times=2, skip=2)

    assert "in service" in shell.change().out


def test_a_stale_read_after_the_config_is_waited_out(ready: Moto, shell: Shell) -> None:
    ready.fault("CreateEndpoint", "ValidationException",
                "Could not find endpoint configuration", times=2)  # fmt: skip

    ran = shell.change()

    assert "AWS does not see yet what was just made" in ran.err
    assert "in service" in ran.out


def test_a_role_that_is_not_known_everywhere_yet_is_waited_for(ready: Moto, shell: Shell) -> None:
    ready.fault("CreateModel", "ValidationException", "Could not assume role", times=2)

    ran = shell.change()

    assert "the role is not known everywhere yet" in ran.err
    assert "in service" in ran.out


def test_a_lost_answer_to_create_endpoint_is_no_failure(ready: Moto, shell: Shell) -> None:
    """It happened, the answer did not come, and the retry is told that it exists already."""
    ready.fault("CreateEndpoint", "InternalFailure", status=500, after=True)

    assert "in service" in shell.change().out


def test_an_endpoint_that_fails_is_explained_and_removed(ready: Moto, shell: Shell) -> None:
    ready.next(outcomes=["failed"])
    logs = ready.client("logs")
    group = "/aws/sagemaker/Endpoints/wine"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="AllTraffic/i-1")
    import time

    logs.put_log_events(logGroupName=group, logStreamName="AllTraffic/i-1", logEvents=[
        {"timestamp": int(time.time() * 1000), "message": "an endpoint that is gone"}])  # fmt: skip
    time.sleep(0.01)  # a stream's age has milliseconds

    ran = shell.change(code=1)

    assert "did not pass the ping health check" in ran.err
    assert "last lines of its log:\n  no sklearn\n" in ran.err
    assert "an endpoint that is gone" not in ran.err
    assert "removed again: the endpoint wine" in ran.err
    assert leftovers(ready) == []


def test_an_update_that_rolls_back_is_a_failure_although_in_service(
    serving: str, ready: Moto, shell: Shell, folder: Path
) -> None:
    ready.next(outcomes=["rolled-back"])
    save_model(folder / "model.joblib", 5.0)

    ran = shell.change(code=1)

    assert "the update was rolled back" in ran.err
    assert "Alarm wine-errors fired" in ran.err
    assert serves(ready) == serving
    configs = ready.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]
    assert [config["EndpointConfigName"] for config in configs] == [serving]
    assert len(ready.client("sagemaker").list_models()["Models"]) == 1


def test_a_rollback_that_fails_leaves_everything_and_says_so(
    serving: str, ready: Moto, shell: Shell, folder: Path
) -> None:
    ready.next(outcomes=["rollback-failed"])
    save_model(folder / "model.joblib", 5.0)

    ran = shell.change(code=1)

    assert "old and new instances serve side by side" in " ".join(ran.err.split())
    assert "Nothing was removed" in ran.err
    assert len(ready.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]) == 2
    assert "in service" in shell.change().out, "the next run repairs it"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            "failed",
            "is Failed: ClientError: See job logs for more information last lines of its log: "
            "rows.csv: Bad HTTP status received from algorithm: 400 Row 1 is short way out",
        ),
        ("stopped", "is Stopped: AWS gives no reason way out"),
    ],
)
def test_a_transform_job_that_does_not_complete_is_told(
    outcome: str, said: str, serving: str, ready: Moto, shell: Shell, folder: Path
) -> None:
    ready.next(outcomes=[outcome])
    (folder / "rows.csv").write_text("1,2\n")

    ran = shell.change("transform", "rows.csv", code=1)

    assert said in " ".join(ran.err.split())
    assert "/aws/sagemaker/TransformJobs" in ran.err


def test_a_failed_endpoint_is_replaced(ready: Moto, shell: Shell) -> None:
    """Made by hand and failed: then nothing can be done with it but to delete it."""
    shell.change()
    ready.next(outcomes=["failed"])
    save_model(shell.folder / "model.joblib", 5.0)
    shell.change(code=1)
    assert "Failed" in shell("status").out

    ran = shell.change()

    assert "the failed endpoint wine" in ran.err
    assert "in service" in ran.out


def test_an_expired_token_while_waiting_names_the_endpoint(ready: Moto, shell: Shell) -> None:
    ready.next(looks=1000)
    ready.fault("DescribeEndpoint", "ExpiredTokenException", "expired", times=99, skip=4)

    ran = shell.change(code=1)

    assert "the credentials are not accepted" in ran.err
    assert "wine may be in the making" in ran.err
    assert "it bills until `python deploy.py delete`" in ran.err
    assert "it resumes" in ran.err


def test_an_expired_token_before_anything_is_one_sentence(ready: Moto, shell: Shell) -> None:
    ready.fault("GetCallerIdentity", "ExpiredToken", "expired", times=9)

    ran = shell.change(code=1)

    assert "renew them" in ran.err
    assert leftovers(ready) == []


def test_a_refused_config_takes_the_model_away_again(ready: Moto, shell: Shell) -> None:
    ready.fault("CreateEndpointConfig", "ResourceLimitExceeded", "The account-level limit is 0")

    ran = shell.change(code=1)

    assert "ResourceLimitExceeded" in ran.err
    assert "removed again: the model wine-" in ran.err
    assert leftovers(ready) == []
    assert ready.client("s3").list_buckets()["Buckets"] == []


def test_a_failing_test_call_leaves_the_endpoint_and_says_what_it_costs(
    ready: Moto, shell: Shell
) -> None:
    told = {"OriginalStatusCode": 400, "OriginalMessage": "expected 13 columns"}
    ready.fault("InvokeEndpoint", "ModelError", "model error", extra=told)

    ran = shell.change(code=1)

    assert "the container answered 400: expected 13 columns" in ran.err
    assert "wine is InService" in ran.err
    assert ran.err.count("it bills until") == 1


def test_scaling_survives_an_update_of_the_instance_type_that_rolls_back(
    ready: Moto, shell: Shell, folder: Path
) -> None:
    image = make_image(ready, "2")
    settings_file(folder, image, "[scaling]\nmax = 3\ntarget = 100\n")
    shell.change()
    ready.next(outcomes=["rolled-back"])

    shell.change("--instance-type", "ml.m5.xlarge", code=1)

    targets = ready.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker"
    )["ScalableTargets"]
    assert [target["MaxCapacity"] for target in targets] == [3]


def test_ctrl_c_while_waiting_says_how_to_resume(ready: Moto, shell: Shell) -> None:
    ready.next(looks=40)

    ran = shell.interrupted(when=lambda: ready.calls[-1:] == ["ListTags"]
                            and "CreateEndpoint" in ready.calls)  # fmt: skip

    assert ran.code == 1
    assert "interrupted. wine is Creating; look with `python deploy.py status`" in ran.err
    assert "it bills until" in ran.err
    shell.change("delete", "--yes")
    assert leftovers(ready) == []


def test_ctrl_c_before_the_endpoint_leaves_nothing(ready: Moto, shell: Shell) -> None:
    ready.fault("CreateEndpointConfig", "ThrottlingException", "Rate exceeded", times=99)

    ran = shell.interrupted(when=lambda: ready.calls.count("CreateEndpointConfig") >= 2)

    assert ran.code == 1
    assert "removed again: " in ran.err
    assert leftovers(ready) == []


def test_a_run_resumes_what_is_still_changing(
    serving: str, ready: Moto, shell: Shell, folder: Path
) -> None:
    """As after Ctrl-C: the endpoint is on its way to what is wanted when the next run looks."""
    save_model(folder / "model.joblib", 5.0)
    ready.next(looks=0)
    shell.change()
    wanted = serves(ready)
    ready.next(looks=6)
    ready.client("sagemaker").update_endpoint(EndpointName="wine", EndpointConfigName=wanted)

    ran = shell.change()

    assert "wine is changing; waiting until that is over" in ran.err
    assert "a test call" in ran.err
    assert ready.calls.count("CreateEndpoint") == 1
