"""A job as AWS's training toolkit tells a script: arguments and SM_* variables.

They are spelled the way that scripts written for AWS's images expect, oddities included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from skserve.training.job import Job

# Control values that AWS's toolkit keeps to itself; other sagemaker_* ones are for the framework.
_TOOLKITS = (
    "sagemaker_program",
    "sagemaker_submit_directory",
    "sagemaker_container_log_level",
    "sagemaker_job_name",
    "sagemaker_region",
    "sagemaker_enable_cloudwatch_metrics",
    "sagemaker_s3_output",
    "_tuning_objective_metric",
    "default_user_module_name",
)


def arguments(job: Job) -> list[str]:
    """Return `--name value` for each hyperparameter, sorted by name."""
    words = []
    for name, value in sorted(job.hyperparameters.items()):
        words += [f"--{name}" if len(name) > 1 else f"-{name}", _argument(value)]
    return words


def variables(job: Job, program: str, module_dir: str, framework: str) -> dict[str, str]:
    """Return the SM_* variables for the script `program`, whose source was `module_dir`."""
    values = _values(job, program, module_dir, framework)
    return {f"SM_{name.upper()}": _value(value) for name, value in values.items()}


def _common(job: Job, program: str, module_dir: str, framework: str) -> dict[str, Any]:
    """Return what stands both in variables of its own and inside of SM_TRAINING_ENV."""
    resources = job.resources
    groups = resources.get("instance_groups", [])
    own = resources.get("current_group_name", "homogeneousCluster")
    mine = [group["hosts"] for group in groups if group.get("instance_group_name") == own]
    return {
        "hosts": job.hosts,
        "current_host": job.host,
        "network_interface_name": resources.get("network_interface_name", "eth0"),
        "current_instance_type": resources.get("current_instance_type", "local"),
        "current_instance_group": own,
        "current_instance_group_hosts": mine[0] if mine else job.hosts,
        "instance_groups": [group["instance_group_name"] for group in groups],
        "instance_groups_dict": {group["instance_group_name"]: group for group in groups},
        "distribution_instance_groups": [],
        "is_hetero": len(groups) > 1,
        "input_dir": str(job.base / "input"),
        "input_config_dir": str(job.base / "input" / "config"),
        "output_dir": str(job.base / "output"),
        "output_data_dir": str(job.output),
        "output_intermediate_dir": str(job.base / "output" / "intermediate"),
        "model_dir": str(job.model_dir),
        "module_dir": module_dir,
        "module_name": program.removesuffix(".py"),
        "user_entry_point": program,
        "framework_module": framework,
        "log_level": job.log_level,
        "num_cpus": job.cpus,
        "num_gpus": 0,
        "num_neurons": 0,
        "input_data_config": dict(job.inputs),
        "resource_config": dict(resources),
    }


def _values(job: Job, program: str, module_dir: str, framework: str) -> dict[str, Any]:
    common = _common(job, program, module_dir, framework)
    hyperparameters = dict(job.hyperparameters)
    channels = {name: str(job.channel(name)) for name in job.inputs}
    extra = {name: value for name, value in job.control.items() if name not in _TOOLKITS}
    told = common | {
        "hyperparameters": hyperparameters,
        "channel_input_dirs": channels,
        "additional_framework_parameters": extra,
        "job_name": job.control.get("sagemaker_job_name"),
        "is_master": job.first,
        "master_hostname": job.hosts[0],
    }
    values = common | {
        "channels": sorted(channels),
        "hps": hyperparameters,
        "user_args": arguments(job),
        "framework_params": extra,
        "training_env": told,
    }
    values |= {f"channel_{name}": path for name, path in channels.items()}
    return values | {f"hp_{name}": value for name, value in hyperparameters.items()}


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _argument(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)
