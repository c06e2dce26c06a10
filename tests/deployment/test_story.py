"""The whole story against moto's server as a process: from a joblib file to nothing left."""

from __future__ import annotations

from pathlib import Path

from tests.deployment.conftest import Moto, Shell, make_image, make_role, save_model, settings_file

MORE = """
[smoke]
body = "1,2"
[scaling]
min = 1
max = 3
target = 100
[update]
error_rate = 0.1
"""


def leftovers(moto: Moto) -> list[str]:
    """Name everything of ours that still exists."""
    sagemaker, scaling = moto.client("sagemaker"), moto.client("application-autoscaling")
    return [
        *(e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]),
        *(c["EndpointConfigName"] for c in sagemaker.list_endpoint_configs()["EndpointConfigs"]),
        *(m["ModelName"] for m in sagemaker.list_models()["Models"]),
        *(t["ResourceId"] for t in
          scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]),
        *(a["AlarmName"] for a in moto.client("cloudwatch").describe_alarms()["MetricAlarms"]),
    ]  # fmt: skip


def test_the_whole_story_leaves_nothing(moto: Moto, shell: Shell, folder: Path) -> None:
    make_role(moto)
    settings_file(folder, make_image(moto), MORE)

    packed = shell.process("pack", "model.joblib")
    assert "sha256:" in packed.out

    made = shell.change("--json").json
    assert made["changed"]
    first = made["config"]
    assert "InService" in shell("status").out
    assert not shell.change("--json").json["changed"]

    save_model(folder / "model.joblib", 3.0)
    second = shell.change("--json").json["config"]
    assert second != first
    back = shell.change("rollback", "--json")
    assert back.json["config"] == first
    assert "applies endpoint.toml again" in back.err
    assert shell.change("--json").json["config"] == second

    assert "scaling set" in shell.change("autoscale", "--max", "5").out
    assert "MaxCapacity 5" in shell("status").out

    (folder / "rows.csv").write_text("1,2\n3,4\n5,6\n")
    batch = shell.change("transform", "rows.csv", "--json").json
    assert batch["lines"] == 3
    assert shell("invoke", "--data", "1,2").out == "1\n"
    assert "wine" in shell("list").out

    gone = shell.change("delete", "--yes")
    assert "jobs, logs, images" in gone.err
    assert leftovers(moto) == []
