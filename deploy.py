#!/usr/bin/env python3
"""Turn a scikit-learn model into an Amazon SageMaker endpoint, and look after it.

Only words and their options are declared here; what they do is in `deployment/`.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "container")]

import click  # noqa: E402

from deployment import batch, commands, many, training, views  # noqa: E402
from deployment.payload import payload  # noqa: E402
from deployment.session import Words, run  # noqa: E402

# Each flag and the key of endpoint.toml that it overrides.
FLAGS = (
    ("--name", "name", "the endpoint"),
    ("--model", "model", "a joblib file, a folder, a .tar.gz or an s3:// URI"),
    ("--code", "code", "a folder with inference.py"),
    ("--choose", "choose", "which file is the model, if there are several"),
    ("--image", "image", "the URI that build_and_push.sh printed"),
    ("--role", "role", "the execution role, by name or ARN"),
    ("--bucket", "bucket", "where the archive goes; default sagemaker-REGION-ACCOUNT"),
    ("--prefix", "prefix", "the folder in the bucket"),
    ("--region", "region", "AWS region"),
    ("--profile", "profile", "a profile of ~/.aws/config"),
    ("--instance-type", "instance.type", "for example ml.m5.large"),
    ("--count", "instance.count", "how many instances"),
    ("--serverless-memory", "serverless.memory_mb", "1024 to 6144: serverless, no instances"),
    ("--serverless-concurrency", "serverless.concurrency", "1 to 200"),
    ("--policy", "update.policy", "all-at-once, canary, linear or rolling"),
)


def _scalar(text: str) -> Any:
    """Read a flag's value as TOML would, and as plain text where it is not TOML."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _place(tree: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    for table in tables:
        tree = tree.setdefault(table, {})
    tree[last] = value


def _words(options: dict[str, Any]) -> Words:
    """Take the shared options out of `options`, and make `Words` of them."""
    overrides: dict[str, Any] = {}
    for flag, key, _ in FLAGS:
        value = options.pop(flag.strip("-").replace("-", "_"))
        if value is not None:
            _place(overrides, key, _scalar(value) if "." in key else value)
    for setting in options.pop("set_"):
        key, equals, value = setting.partition("=")
        if not equals:
            raise click.UsageError(f"--set {setting}: it must be KEY=VALUE, for example keep=5")
        _place(overrides, key.strip(), _scalar(value.strip()))
    shared = ("file", "machine", "dry_run", "force", "adopt", "yes", "poll")
    return Words(overrides=overrides, **{name: options.pop(name) for name in shared})


def shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a word the options that all words share."""
    extra = (
        click.option("-f", "--file", type=click.Path(path_type=Path, dir_okay=False),
                     help="settings; default endpoint.toml if it exists"),
        click.option("--set", "set_", multiple=True, metavar="KEY=VALUE",
                     help="override any other key, for example --set scaling.max=4"),
        click.option("--dry-run", is_flag=True, help="print the calls, make none that changes"),
        click.option("--json", "machine", is_flag=True, help="results as JSON"),
        click.option("--force", is_flag=True, help="go on although preflight refuses"),
        click.option("--adopt", is_flag=True, help="take over an endpoint made elsewhere"),
        click.option("--yes", is_flag=True, help="do not ask before deleting"),
        click.option("--poll", default=15.0, show_default=True, type=click.FloatRange(min=0.01),
                     help="seconds between looks while waiting"),
    )  # fmt: skip
    for option in reversed(extra):
        function = option(function)
    for flag, key, text in reversed(FLAGS):
        function = click.option(flag, default=None, help=f"{text} [{key}]")(function)
    return function


def _inherited(options: dict[str, Any]) -> dict[str, Any]:
    """Let `deploy.py -f FILE status` mean the same as `deploy.py status -f FILE`."""
    context = click.get_current_context()
    above = context.parent.params if context.parent else {}
    default = click.core.ParameterSource.DEFAULT
    untold = {
        name
        for name, value in options.items()
        if context.get_parameter_source(name) is default and value == context.params[name]
    }
    return options | {name: above[name] for name in untold if name in above}


def go(word: Callable[..., None], options: dict[str, Any], *arguments: Any) -> None:
    """Run a word and leave with its exit code."""
    words = _words(_inherited(options))
    sys.exit(run(lambda: word(words, *arguments), words.talk))


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@shared
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Make the endpoint what endpoint.toml says. With a word, do that instead.

    A first endpoint: `pack` to see what would be uploaded, `role --create` once, `plan` to see
    every call, then no word at all. `delete` ends what it costs.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused before anything was made.
    """
    if context.invoked_subcommand is None:
        go(commands.deploy, options)


@main.command()
@shared
def plan(**options: Any) -> None:
    """Print the calls that making the endpoint would need."""
    go(commands.deploy, options | {"dry_run": True})


@main.command()
@click.argument("model")
@click.option("--code", help="a folder with inference.py")
@click.option("--choose", default="", help="which file is the model, if there are several")
@click.option("-o", "--output", default="model.tar.gz", type=click.Path(path_type=Path))
@click.option("--json", "machine", is_flag=True, help="results as JSON")
def pack(model: str, code: str | None, choose: str, output: Path, machine: bool) -> None:
    """Make and verify model.tar.gz of MODEL, a joblib file or a folder."""
    words = Words(machine=machine)
    sys.exit(run(lambda: commands.pack(words, model, code, choose, output), words.talk))


@main.command()
@shared
@click.option("--create", is_flag=True, help="make the role, not only print it")
def role(create: bool, **options: Any) -> None:
    """Print the execution role's trust and permissions, or make the role."""
    go(commands.role, options, create)


@main.command()
@shared
@click.argument("body", required=False)
@click.option("--data", help="the body itself, for example 5.1,3.5,1.4,0.2")
@click.option("--content-type", default="", help="default: by the file's ending, else text/csv")
@click.option("--accept", default="application/json", show_default=True)
@click.option("--wait", default=900.0, show_default=True, help="seconds, if asynchronous")
@click.option(
    "--target-model", "target", default="", help="the one of many, as list-models names it"
)
def invoke(body: str | None, data: str | None, content_type: str, accept: str, wait: float,
           target: str, **options: Any) -> None:  # fmt: skip
    """Call the endpoint with the file BODY (- or nothing: stdin) and print the answer."""

    def work(words: Words) -> None:
        content, kind = payload(body, data, content_type)
        views.invoke(words, content, kind, accept, wait, target)

    go(work, options)


@main.command()
@shared
def status(**options: Any) -> None:
    """Print what the endpoint is and which configs are kept."""
    go(views.status, options)


@main.command()
@shared
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 10000))
@click.option("--follow", is_flag=True, help="go on until Ctrl-C")
def logs(lines: int, follow: bool, **options: Any) -> None:
    """Print the last lines of the endpoint's log."""
    go(views.logs, options, lines, follow)


@main.command()
@shared
def rollback(**options: Any) -> None:
    """Go back to the newest kept config older than the one in use."""
    go(commands.rollback, options)


@main.command()
@shared
@click.argument("source")
@click.option("--output", default="", help="s3:// URI; default beside the model")
@click.option("--content-type", default="", help="default: by the ending of SOURCE")
@click.option("--accept", default="", help="default: as the content type")
@click.option("--transform-instance", default="", help="default: as the endpoint's")
@click.option("--transform-count", default=1, type=click.IntRange(1, 100))
@click.option("--join", is_flag=True, help="put each answer beside its record")
@click.option("--payload-mb", type=click.IntRange(1, 100))
@click.option("--concurrent", type=click.IntRange(1, 100))
@click.option("--job-name", default="")
def transform(source: str, output: str, content_type: str, accept: str, transform_instance: str,
              transform_count: int, join: bool, payload_mb: int | None, concurrent: int | None,
              job_name: str, **options: Any) -> None:  # fmt: skip
    """Run a batch job over SOURCE, a file here or an s3:// URI."""
    job = batch.Job(source, output, content_type, accept, transform_instance, transform_count, join,
                    payload_mb, concurrent, job_name)  # fmt: skip
    go(batch.transform, options, job)


@main.command()
@shared
@click.option("--channel", "channels", multiple=True, metavar="NAME=PATH",
              help="data: a file, a folder or an s3:// URI")  # fmt: skip
@click.option("--hyperparameter", "hyperparameters", multiple=True, metavar="NAME=VALUE",
              help="for example estimator=sklearn.svm.SVC")  # fmt: skip
@click.option("--train-instance", help="for example ml.m5.xlarge [train.type]")
@click.option("--spot/--no-spot", default=None, help="cheaper, may be interrupted [train.spot]")
@click.option("--job-name", default="")
@click.option("--follow", default="", metavar="JOB", help="watch a job that was made before")
@click.option("--stop", default="", metavar="JOB", help="stop a job; it may save its model")
@click.option("--then-deploy", is_flag=True, help="make the endpoint from its model")
def train(channels: tuple[str, ...], hyperparameters: tuple[str, ...], train_instance: str | None,
          spot: bool | None, job_name: str, follow: str, stop: str, then_deploy: bool,
          **options: Any) -> None:  # fmt: skip
    """Train a model as [train] says: make the job, show its log, print its model's URI."""
    given = {"type": train_instance, "spot": None if spot is None else str(spot).lower()}
    extra = tuple(f"train.{key}={value}" for key, value in given.items() if value is not None)
    asked = training.Asked(_pairs(channels), _pairs(hyperparameters), job_name, follow, stop,
                           then_deploy)  # fmt: skip
    go(training.train, options | {"set_": options["set_"] + extra}, asked)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    """Split NAME=VALUE."""
    for pair in given:
        if not pair.partition("=")[1]:
            raise click.UsageError(f"{pair}: it must be NAME=VALUE")
    return {name: value for name, _, value in (pair.partition("=") for pair in given)}


@main.command()
@shared
@click.option("--min", "least", type=click.IntRange(min=0))
@click.option("--max", "most", type=click.IntRange(min=1))
@click.option("--target", type=float, help="calls per instance and minute, or as the metric says")
@click.option("--off", is_flag=True, help="take scaling off")
def autoscale(least: int | None, most: int | None, target: float | None, off: bool,
              **options: Any) -> None:  # fmt: skip
    """Set or take off the scaling of an endpoint in service."""
    given = {"min": least, "max": most, "target": target}
    extra = tuple(f"scaling.{key}={value}" for key, value in given.items() if value is not None)
    go(commands.autoscale, options | {"set_": options["set_"] + extra}, off)


@main.command("list")
@shared
@click.option("--all", "everything", is_flag=True, help="also those made elsewhere")
def list_(everything: bool, **options: Any) -> None:
    """List endpoints: age, instances, calls of the last day; mark the idle."""
    go(views.listed, options, everything)


@main.command()
@shared
@click.argument("source")
@click.option("--as", "called", default="", help="its name for callers; default: SOURCE's")
def add_model(source: str, called: str, **options: Any) -> None:
    """Add SOURCE, a joblib file, a folder or a .tar.gz, to an endpoint of many models."""
    # Of the model, not of the endpoint, whose file has neither.
    code, choose = options["code"], options["choose"] or ""
    go(many.add, options | {"code": None, "choose": None}, source, called, code, choose)


@main.command()
@shared
@click.argument("target")
def remove_model(target: str, **options: Any) -> None:
    """Remove the model TARGET from an endpoint of many models."""
    go(many.remove, options, target)


@main.command()
@shared
def list_models(**options: Any) -> None:
    """List the models of an endpoint of many, with the names that callers say."""
    go(many.listed, options)


@main.command()
@shared
def delete(**options: Any) -> None:
    """Remove the endpoint and all of its configs, models, scaling and alarms."""
    go(commands.delete, options)


if __name__ == "__main__":
    main()
