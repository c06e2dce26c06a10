"""Settings: names, units, defaults, and what the kernel lets a container use."""

from __future__ import annotations

from pathlib import Path

import pytest

from skserve.config import Config, settings
from skserve.errors import StartError
from skserve.machine import Machine


def test_an_empty_string_means_unset():
    names = [setting.metadata["name"] for setting in settings()]

    assert Config.from_env(dict.fromkeys(names, " ")) == Config.from_env({})


def test_the_command_line_wins_over_the_environment():
    config = Config.from_env({"SAGEMAKER_BIND_TO_PORT": "9000"}, port=9001, model_dir=None)

    assert config.port == 9001
    assert config.model_dir == Path("/opt/ml/model")


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "9090", "port", 9090),
        ("SAGEMAKER_BASE_DIR", "/data", "model_dir", Path("/data/model")),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "0.5", "timeout", 0.5),
        ("SAGEMAKER_MULTI_MODEL", "FALSE", "multi_model", False),
        ("SKSERVE_PRELOAD", "Off", "preload", False),
        ("SKSERVE_VERSION_POLICY", "Error", "version_policy", "error"),
        ("SKSERVE_SKOPS_TRUSTED", "a.B, c.D ,", "skops_trusted", ("a.B", "c.D")),
        ("AWS_REGION", "eu-west-1", "region", "eu-west-1"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "Application/JSON", "accept", "application/json"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv; charset=utf-8", "accept", "text/csv"),
    ],
)
def test_a_setting_is_parsed(name, value, field, expected):
    assert getattr(Config.from_env({name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "0", "a whole number from 1 to 65,535"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "soon", "a number of seconds above 0"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "inf", "a number of seconds above 0"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "-1", "a number of seconds above 0"),
        ("SAGEMAKER_MULTI_MODEL", "maybe", "one of true, 1, false, 0"),
        ("SKSERVE_VERSION_POLICY", "strict", "one of warn, error, off"),
        ("SKSERVE_SPOOL_DIR", "/no/where", "a folder that is there"),
    ],
)
def test_a_value_that_does_not_parse_is_one_sentence(name, value, expected):
    with pytest.raises(StartError, match=f"{name} is '{value}'; expected {expected}."):
        Config.from_env({name: value})


def kernel(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({"cpu_DOT_max": "50000 100000", "memory_DOT_max": "1073741824"}, 0.5, 1 << 30),
        ({"cpu_DOT_max": "max 100000", "memory_DOT_max": "max"}, None, None),
        (
            {
                "cpu__cpu_DOT_cfs_quota_us": "25000",
                "cpu__cpu_DOT_cfs_period_us": "100000",
                "memory__memory_DOT_limit_in_bytes": "536870912",
            },
            0.25,
            512 << 20,
        ),
        (
            {
                "cpu__cpu_DOT_cfs_quota_us": "-1",
                "cpu__cpu_DOT_cfs_period_us": "100000",
                "memory__memory_DOT_limit_in_bytes": "9223372036854771712",
            },
            None,
            None,
        ),
        ({}, None, None),
    ],
    ids=["v2", "v2 without limits", "v1", "v1 without limits", "no cgroup"],
)
def test_the_limits_of_a_container_are_read(tmp_path, files, cpus, memory):
    whole = Machine.read(tmp_path / "nothing")

    machine = Machine.read(kernel(tmp_path, **files))

    assert machine.cpus == (cpus or whole.cpus)
    assert machine.memory == (memory or whole.memory)
