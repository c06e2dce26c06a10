#!/usr/bin/env python3
"""Turn a scikit-learn model into an Amazon SageMaker endpoint, and look after it.

Only words and their options are declared here; what they do is in `deployment/`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "container")]

import click  # noqa: E402

from deployment import batch, calls, commands, many, training, views  # noqa: E402
from deployment import role as roles  # noqa: E402
from deployment import selftest as selftests  # noqa: E402
from deployment.options import FLAGS as FLAGS  # noqa: E402
from deployment.options import Main, Word, go, shared, version  # noqa: E402
from deployment.payload import payload, type_of  # noqa: E402
from deployment.session import Words, run  # noqa: E402

EXAMPLES = {
    "": ("", "--instance-type ml.c7i.large", "--set scaling.max=4 --set scaling.target=200"),
    "plan": ("plan", "plan --detailed-exitcode", "plan --json --model other.joblib"),
    "pack": (
        "pack model.joblib",
        "pack folder --code code -o model.tar.gz",
        "pack model.joblib --example rows.csv",
    ),
    "role": ("role", "role --create", "role --create --role team/skserve"),
    "invoke": (
        "invoke --data 5.1,3.5,1.4,0.2",
        "invoke rows.parquet -o answers.csv --accept text/csv",
        "invoke rows.json --custom-attributes method=predict_proba --inference-id 42",
    ),
    "selftest": ("selftest", "selftest --rows rows.csv --expect answers.csv", "selftest --json"),
    "status": ("status", "status --json"),
    "logs": ("logs", "logs -n 200 --follow"),
    "rollback": ("rollback", "rollback wine-599b4a3dbd7e"),
    "transform": (
        "transform rows.csv",
        "transform folder --join --output-filter '$[0,-1]'",
        "transform s3://bucket/input/ --content-type text/csv",
    ),
    "train": (
        "train --channel train=wine.csv --hyperparameter estimator=sklearn.svm.SVC",
        "train --follow wine-20261129-090000",
        "train --then-deploy --save",
    ),
    "autoscale": ("autoscale --max 4 --target 200", "autoscale --off"),
    "list": ("list", "list --all --region eu-west-1"),
    "add-model": ("add-model b.joblib", "add-model model.joblib --as team/a"),
    "remove-model": ("remove-model b --yes",),
    "list-models": ("list-models",),
    "delete": ("delete --dry-run", "delete --yes"),
}


def word(name: str) -> Any:
    """Make a command of the function below: a word with its examples."""
    return main.command(name, cls=Word, examples=EXAMPLES[name])


@click.group(
    cls=Main,
    invoke_without_command=True,
    examples=EXAMPLES[""],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(version(HERE), prog_name="deploy.py")
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


@word("plan")
@click.option("--detailed-exitcode", is_flag=True,
              help="exit with 0 if there is nothing to do, with 2 if there is")  # fmt: skip
@shared
def plan(**options: Any) -> None:
    """Print the calls that making the endpoint would need."""
    go(commands.deploy, options | {"dry_run": True})


@word("pack")
@click.argument("model")
@click.option("--code", help="a folder with inference.py")
@click.option("--choose", default="", help="which file is the model, if there are several")
@click.option("--example", type=click.Path(path_type=Path, dir_okay=False), metavar="ROWS",
              help="rows that callers will send: makes schema.json of them")  # fmt: skip
@click.option("-o", "--output", default="model.tar.gz", type=click.Path(path_type=Path))
@click.option("--json", "machine", is_flag=True, help="results as JSON")
def pack(model: str, code: str | None, choose: str, example: Path | None, output: Path,
         machine: bool) -> None:  # fmt: skip
    """Make and verify model.tar.gz of MODEL, a joblib file or a folder."""
    words = Words(machine=machine)
    sys.exit(run(lambda: commands.pack(words, model, code, choose, output, example), words.talk))


@word("role")
@shared
@click.option("--create", is_flag=True, help="make the role, not only print it")
def role(create: bool, **options: Any) -> None:
    """Print the execution role's trust and permissions, or make the role."""
    go(roles.role, options, create)


@word("invoke")
@shared
@click.argument("body", required=False)
@click.option("--data", help="the body itself, for example 5.1,3.5,1.4,0.2")
@click.option("--content-type", default="", help="default: by the file's ending, else text/csv")
@click.option("--accept", default="application/json", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False),
              help="write the answer to this file instead of stdout")  # fmt: skip
@click.option("--custom-attributes", default="", help="for example method=predict_proba")
@click.option("--inference-id", default="", help="found again in captured data")
@click.option("--target-variant", default="", help="the variant that answers, if there are several")
@click.option("--stream", is_flag=True, help="print the answer's parts as they come")
@click.option("--wait", default=900.0, show_default=True, help="seconds, if asynchronous")
@click.option(
    "--target-model", "target", default="", help="the one of many, as list-models names it"
)
def invoke(body: str | None, data: str | None, content_type: str, accept: str, wait: float,
           output: Path | None, target: str, stream: bool, **options: Any) -> None:  # fmt: skip
    """Call the endpoint with the file BODY (- or nothing: stdin) and print the answer.

    An asynchronous endpoint also takes an s3:// URI as BODY, without sending it.
    """
    named = ("custom_attributes", "inference_id", "target_variant")
    headers = {name: options.pop(name) for name in named}

    def work(words: Words) -> None:
        if body is not None and body.startswith("s3://"):
            content: bytes | str = body
            kind = content_type or type_of(body)
        else:
            content, kind = payload(body, data, content_type)
        calls.invoke(words, calls.Invocation(content, kind, accept, target, stream, wait, output,
                                             **headers))  # fmt: skip

    go(work, options)


@word("selftest")
@shared
@click.option("--rows", type=click.Path(path_type=Path), help="a body that the model takes")
@click.option("--expect", type=click.Path(path_type=Path), help="the answer to those rows")
@click.option("--target-model", "target", default="", help="the one of many models")
@click.option("--target-variant", "variant", default="", help="the one of several variants")
def selftest(rows: Path | None, expect: Path | None, target: str, variant: str,
             **options: Any) -> None:  # fmt: skip
    """Call the endpoint in every format, with good rows and wrong ones; 1 where a check fails."""
    go(selftests.selftest, options, selftests.Asked(rows, expect, target, variant))


@word("status")
@shared
def status(**options: Any) -> None:
    """Print what the endpoint is and which configs are kept."""
    go(views.status, options)


@word("logs")
@shared
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 10000))
@click.option("--follow", is_flag=True, help="go on until Ctrl-C")
def logs(lines: int, follow: bool, **options: Any) -> None:
    """Print the last lines of the endpoint's log."""
    go(views.logs, options, lines, follow)


@word("rollback")
@shared
@click.argument("config", default="")
def rollback(config: str, **options: Any) -> None:
    """Go back to CONFIG, or to the last good one that served before the one in use."""
    go(commands.rollback, options, config)


@word("transform")
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
@click.option("--input-filter", default="", help="what of a record is sent: a JSONPath, $[1:]")
@click.option("--output-filter", default="", help="what of the (joined) answer stays, $[0,-1]")
def transform(source: str, output: str, content_type: str, accept: str, transform_instance: str,
              transform_count: int, join: bool, payload_mb: int | None, concurrent: int | None,
              job_name: str, input_filter: str, output_filter: str,
              **options: Any) -> None:  # fmt: skip
    """Run a batch job over SOURCE: a file or a folder here, or an s3:// URI or prefix."""
    job = batch.Job(source, output, content_type, accept, transform_instance, transform_count, join,
                    payload_mb, concurrent, job_name, input_filter, output_filter)  # fmt: skip
    go(batch.transform, options, job)


@word("train")
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
@click.option("--save", is_flag=True, help="with --then-deploy: write the model into the file")
def train(channels: tuple[str, ...], hyperparameters: tuple[str, ...], train_instance: str | None,
          spot: bool | None, job_name: str, follow: str, stop: str, then_deploy: bool, save: bool,
          **options: Any) -> None:  # fmt: skip
    """Train a model as [train] says: make the job, show its log, print its model's URI."""
    given = {"type": train_instance, "spot": None if spot is None else str(spot).lower()}
    extra = tuple(f"train.{key}={value}" for key, value in given.items() if value is not None)
    asked = training.Asked(_pairs(channels), _pairs(hyperparameters), job_name, follow, stop,
                           then_deploy, save)  # fmt: skip
    go(training.train, options | {"set_": options["set_"] + extra}, asked)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    """Split NAME=VALUE."""
    for pair in given:
        if not pair.partition("=")[1]:
            raise click.UsageError(f"{pair}: it must be NAME=VALUE")
    return {name: value for name, _, value in (pair.partition("=") for pair in given)}


@word("autoscale")
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


@word("list")
@shared
@click.option("--all", "everything", is_flag=True, help="also those made elsewhere")
def list_(everything: bool, **options: Any) -> None:
    """List endpoints: age, instances, calls of the last day; mark the idle."""
    go(views.listed, options, everything)


@word("add-model")
@shared
@click.argument("source")
@click.option("--as", "called", default="", help="its name for callers; default: SOURCE's")
def add_model(source: str, called: str, **options: Any) -> None:
    """Add SOURCE, a joblib file, a folder or a .tar.gz, to an endpoint of many models."""
    # Of the model, not of the endpoint, whose file has neither.
    code, choose = options["code"], options["choose"] or ""
    go(many.add, options | {"code": None, "choose": None}, source, called, code, choose)


@word("remove-model")
@shared
@click.argument("target")
def remove_model(target: str, **options: Any) -> None:
    """Remove the model TARGET from an endpoint of many models."""
    go(many.remove, options, target)


@word("list-models")
@shared
def list_models(**options: Any) -> None:
    """List the models of an endpoint of many, with the names that callers say."""
    go(many.listed, options)


@word("delete")
@shared
def delete(**options: Any) -> None:
    """Remove the endpoint and all of its configs, models, scaling and alarms."""
    go(commands.delete, options)


if __name__ == "__main__":
    main()
