"""The word `selftest`: the checks of the image's own selftest, as far as a live endpoint lets them.

An endpoint answers `/invocations` alone. What the model takes is read from what lies beside it: its
`schema.json`, or the record that our own training leaves; else rows have to be given. Rows are
made, written in each format and compared by the code of the image, so this needs what it imports.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployment import package, survey
from deployment.aws import Cloud
from deployment.errors import ApiError, Failed, ModelAnswered, Refused
from deployment.session import Words, connect
from deployment.settings import Settings
from skserve import archive

if TYPE_CHECKING:
    from skserve.estimators.declared import Declared
    from skserve.selftest.client import Answer
    from skserve.selftest.verdict import Verdict
    from skserve.selftest.walk import Walk

_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
# The API's own refusals of a body that is too large, or of a header that it does not take.
_TOO_LARGE, _REFUSED = 413, 400


@dataclass(frozen=True)
class Asked:
    """What the command line said."""

    rows: Path | None = None
    expect: Path | None = None
    target: str = ""  # of many models, the one that is called
    variant: str = ""


def selftest(words: Words, asked: Asked) -> int:
    """Make every check and print the table; return 1 where one failed."""
    settings, talk = words.settings(), words.talk
    if settings.mode == "async":
        raise Refused(
            "the selftest waits for answers, and an asynchronous endpoint puts them into S3",
            "call it by `python deploy.py invoke`; test the model by `docker run ... selftest`",
        )
    if (settings.models is None) == bool(asked.target):
        raise Refused(
            "--target-model is for endpoints of many models, and these need it",
            "python deploy.py list-models",
        )
    try:
        from skserve.selftest import checks, report
    except ImportError as error:
        raise Refused(
            f"the selftest makes rows by the code of the image, which needs {error.name}",
            "pip install --require-hashes -r requirements/serve-1.9.txt",
        ) from error
    cloud = connect(settings)
    endpoint = survey.find_endpoint(cloud, settings.name)
    if endpoint is None or endpoint.status not in ("InService", "Updating", "SystemUpdating"):
        state = f"is {endpoint.status}" if endpoint else f"is not in {cloud.region}"
        raise Failed(f"the endpoint {settings.name} {state}, so it answers no call")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        walk = _walk(cloud, settings, asked, Path(scratch))
        rows = checks.made(walk, (*checks.CALLS, ("payload limit", _payload_limit)))
    report.progress("")
    took = time.monotonic() - began
    value = report.as_data(rows, took)
    talk.result(value, report.as_text(rows, took))
    return int(value["FAIL"] > 0)


def _payload_limit(walk: Walk) -> Verdict:
    """Send a byte more than the endpoint takes: AWS or the container must refuse it."""
    from skserve.selftest.verdict import failed, passed

    limit = walk.config.max_body
    answer = walk.post(b" " * (limit + 1))
    if not 400 <= answer.status < 500:
        return failed(f"{limit + 1:,} bytes are answered {answer.said}.", "Expected a 4xx.")
    return passed(f"{limit + 1:,} bytes are refused by {answer.status}.")


def _walk(cloud: Cloud, settings: Settings, asked: Asked, scratch: Path) -> Walk:
    """Return what the checks share, for an endpoint in place of a server of their own."""
    from skserve.config import MIB, Config
    from skserve.selftest import walk as walks

    class Remote(walks.Walk):
        """A walk whose model has its own method: an endpoint does not say which others it has."""

        def post(
            self, body: bytes, content_type: str = "application/json",
            accept: str = "application/json",
        ) -> Answer:  # fmt: skip
            headers = {"Content-Type": content_type, "Accept": accept}
            return self.client.ask("POST", "/invocations", body, headers)

    limit = 4 * MIB if settings.mode == "serverless" else 25 * MIB
    about = _about(settings, _unpacked(settings, scratch))
    rows = asked.rows or (None if about["columns"] else _smoke(settings, scratch))
    given = walks.Given(settings.folder, rows, asked.expect)
    server: Any = _Endpoint(_Client(cloud, settings, asked))
    config = Config(max_payload_mb=limit // MIB)
    return Remote(given, config, {}, server, 0.0, scratch, about=about)


@dataclass(frozen=True)
class _Client:
    """InvokeEndpoint in the form of the selftest's HTTP client."""

    cloud: Cloud
    settings: Settings
    asked: Asked

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call the endpoint; `method` and `path` are always those of an invocation."""
        from skserve.selftest.client import Answer

        named = dict(headers or {})
        call = {
            "EndpointName": self.settings.name,
            "ContentType": named.get("Content-Type", ""),
            "Accept": named.get("Accept", ""),
            "CustomAttributes": named.get(_ATTRIBUTES, ""),
            "TargetModel": self.asked.target,
            "TargetVariant": self.asked.variant,
        }
        sent = {key: value for key, value in call.items() if value}
        began = time.perf_counter()
        try:
            said = self.cloud.call("sagemaker-runtime", "invoke_endpoint", Body=body, **sent)
        except ModelAnswered as error:
            status, kind, content = error.status, "application/json", error.body.encode()
        except ApiError as error:  # AWS's own refusal, before the container has seen the call
            status = _TOO_LARGE if "413" in error.code + error.message else _REFUSED
            kind, content = "text/plain", error.message.encode()
        else:
            status, kind, content = 200, said.get("ContentType", ""), said["Body"]
        media_type = kind.partition(";")[0].strip().lower()
        return Answer(status, media_type, content, time.perf_counter() - began)


@dataclass(frozen=True)
class _Endpoint:
    """An endpoint in the place of the selftest's server; its log is in CloudWatch."""

    client: _Client
    lines: tuple[str, ...] = field(default=())

    def log(self) -> list[str]:
        return list(self.lines)


def _about(settings: Settings, model: Path | None) -> dict[str, Any]:
    """Say what the model in the folder `model` takes, as its server would at `GET /`."""
    from skserve.estimators.schema import Schema
    from skserve.formats.catalogue import DECODERS, ENCODERS
    from skserve.formats.media_types import ARROW_FILE, ARROW_STREAM, PARQUET, X_PARQUET

    optional = {ARROW_FILE, ARROW_STREAM, PARQUET, X_PARQUET}  # the plain image has none of these
    declared, schema = _declared(model), Schema()
    if declared is not None and declared.columns:
        schema = Schema(len(declared.columns), declared.names, declared.columns)
    described = schema.describe()
    if declared is not None and declared.example is not None:
        described["example"] = {"content_type": "application/json", "body": declared.example}
    return {
        **described,
        "model": "the model",
        "method": "predict",
        "script": _functions(model),
        "content_types": [one for one in DECODERS if one not in optional],
        "accept": [one for one in ENCODERS if one not in optional],
    }


def _unpacked(settings: Settings, scratch: Path) -> Path | None:
    """Return a folder with what the endpoint's model folder holds; None where that is in S3."""
    if settings.models is not None or settings.model.startswith("s3://") or not settings.model:
        return None
    model, code = settings.folder / settings.model, settings.code
    packed = scratch / "model.tar.gz"
    package.pack(model, packed, settings.folder / code if code else None, settings.choose)
    archive.extract(packed if packed.exists() else model, scratch / "model")
    return scratch / "model"


def _declared(model: Path | None) -> Declared | None:
    """Return what lies beside the model says of its columns: a schema, or our training's record."""
    from skserve.estimators.columns import Column
    from skserve.estimators.declared import Declared
    from skserve.inference import declaration

    if model is None:
        return None
    declared = declaration.read(model)
    if declared is not None or not (model / archive.RECORD).is_file():
        return declared
    record = json.loads((model / archive.RECORD).read_bytes())
    names = record.get("feature_names")
    columns = (Column(source=archive.RECORD),) * int(record.get("n_features") or 0)
    return Declared(archive.RECORD, columns, tuple(names) if names else None)


def _functions(model: Path | None) -> list[str]:
    """Name the functions of the script, by parsing it."""
    from skserve.inference.hooks import HOOKS

    scripts = (
        [model / archive.CODE_FOLDER / "inference.py", model / "inference.py"] if model else []
    )
    source = next((path.read_bytes() for path in scripts if path.is_file()), b"")
    return [name for name in HOOKS if archive.binds(source, name)]


def _smoke(settings: Settings, scratch: Path) -> Path | None:
    """Write the call of [smoke] into a file, as rows that the model takes."""
    from skserve.selftest.tables import MEDIA_TYPES

    if settings.smoke is None:
        return None
    kind = settings.smoke.content_type.partition(";")[0]
    suffix = next((suffix for suffix, known in MEDIA_TYPES.items() if known == kind), None)
    if suffix is None:
        return None
    path = scratch / f"smoke{suffix}"
    path.write_text(settings.smoke.body, "utf-8")
    return path
