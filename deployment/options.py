"""The options that all words of `deploy.py` share, and how a word's help is laid out."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deployment.session import Words, run

# Each flag and the key of endpoint.toml that it overrides.
FLAGS = (
    ("--name", "name", "the endpoint"),
    ("--model", "model", "a joblib file, a folder, a .tar.gz or an s3:// URI"),
    ("--code", "code", "a folder with inference.py"),
    ("--choose", "choose", "which file is the model, if there are several"),
    ("--image", "image", "what build_and_push.sh printed, or a repository of the account"),
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
    given = {name: options.pop(name) for name in shared}
    wait, detailed = not options.pop("no_wait"), options.pop("detailed_exitcode", False)
    return Words(overrides=overrides, wait=wait, detailed=detailed, **given)


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
        click.option("--yes", is_flag=True, help="do not ask before what bills, or deletes"),
        click.option("--no-wait", is_flag=True, help="leave once AWS has taken up the change"),
        click.option("--poll", default=15.0, show_default=True, type=click.FloatRange(min=0.01),
                     help="seconds between looks while waiting, but for the first few"),
    )  # fmt: skip
    for option in reversed(extra):
        function = option(function)
    for flag, key, text in reversed(FLAGS):
        function = click.option(flag, default=None, help=f"{text} [{key}]")(function)
    return function


def version(folder: Path) -> str:
    """Return the project's version, as the package of the container beside deploy.py has it."""
    text = (folder / "container" / "skserve" / "__init__.py").read_text(encoding="utf-8")
    return text.partition('__version__ = "')[2].partition('"')[0]


_SHARED = frozenset({flag for flag, _, _ in FLAGS}) | {
    "--file", "--set", "--dry-run", "--json", "--force", "--adopt", "--yes", "--no-wait", "--poll",
}  # fmt: skip


class Word(click.Command):
    """A word whose help shows its own options first, then the shared ones, then examples."""

    def __init__(self, *arguments: Any, examples: tuple[str, ...] = (), **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        for parameter in options:
            record = parameter.get_help_record(ctx)
            if record is not None:
                (common if _SHARED & set(parameter.opts) else own).append(record)
        for title, records in (("Options", own), ("Options of all words", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"  python deploy.py {example}".rstrip() + "\n")


class Main(Word, click.Group):
    """The group itself: a word, too, whose help also lists the others."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)


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
