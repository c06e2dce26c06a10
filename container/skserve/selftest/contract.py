"""Checks of what SageMaker asks of a container, whatever its model."""

from __future__ import annotations

import json
import re

from skserve.config import MIB
from skserve.inference.versions import minor
from skserve.selftest.process import STOP_LIMIT
from skserve.selftest.verdict import Verdict, failed, passed, warned
from skserve.selftest.walk import Walk

PING_LIMIT = 2.0  # seconds: SageMaker replaces an instance whose ping takes longer
SERVERLESS_START = 180.0  # seconds, the download of the model included


def start(walk: Walk) -> Verdict:
    sentence = f"/ping was 200 after {walk.ready_after:.1f} s."
    if walk.ready_after > SERVERLESS_START / 2:
        return warned(
            sentence + f" A serverless endpoint has {SERVERLESS_START:.0f} s, with the download.",
            "Save the model without compression, or import less in its script; else use instances.",
        )
    return passed(sentence)


def ping(walk: Walk) -> Verdict:
    answers = [walk.client.ask(method, "/ping") for method in ("GET", "HEAD") * 5]
    worst = max(answer.seconds for answer in answers)
    if wrong := [answer for answer in answers if answer.status != 200 or answer.body]:
        return failed(f"/ping answers {wrong[0].said}.", "It must be 200 with an empty body.")
    if worst > PING_LIMIT:
        return warned(
            f"One of {len(answers)} pings took {worst:.1f} s without any load.",
            f"SageMaker replaces an instance after {PING_LIMIT:.0f} s: give it more CPU.",
        )
    return passed(f"200 with an empty body, {worst * 1e3:.1f} ms at most.")


def description(walk: Walk) -> Verdict:
    columns = walk.about["columns"]
    silent = [column["name"] or "?" for column in columns if column["source"] == "not said"]
    what = f"{walk.about['model']}.{walk.about['method']}"
    if walk.about["input"] == "list of texts":
        return passed(f"{what} takes a list of texts.")
    if not columns:
        return warned(
            f"The model does not say its columns; {what} answers.",
            "A schema.json beside it says them: docs/25-columns.md.",
        )
    if silent:
        return warned(
            f"{what}: {len(silent)} of {len(columns)} columns have no type: {', '.join(silent)}.",
            "A schema.json beside the model says them: docs/25-columns.md.",
        )
    return passed(f"{what} takes {len(columns)} columns, each of a type that is known.")


def versions(walk: Walk) -> Verdict | None:
    here, saved = (
        walk.about["versions"][name] for name in ("scikit-learn", "saved_with_scikit-learn")
    )
    if saved is None:
        return None
    if minor(saved) != minor(here):
        return warned(
            f"The model was saved by scikit-learn {saved}, and here is {here}: answers may differ.",
            f"Build the image with --build-arg SKLEARN={minor(saved)}, or save the model again.",
        )
    return passed(f"scikit-learn {here} serves what {saved} saved.")


_FAST = re.compile(r"accelerated (.+); as scikit-learn does it: (.+)$")


def fast_paths(walk: Walk) -> Verdict | None:
    """What has a fast path, as the log says it; text and mixed tables are not even tried."""
    said = [found for line in walk.start_log if (found := _FAST.search(line))]
    if walk.script:
        return None
    if not said:
        return passed("The model has no fast path: scikit-learn answers.")
    return passed(f"accelerated: {said[-1][1]}; as scikit-learn does it: {said[-1][2]}.")


def start_log(walk: Walk) -> Verdict:
    noted = [line for line in walk.start_log if " WARNING " in line or " ERROR " in line]
    if noted:
        return warned(f"The log of the start has a warning: {_shown(noted[0])}", _WHOLE_LOG)
    return passed("The log of the start has no warning.")


def routes(walk: Walk) -> Verdict:
    wrong = [
        f"{method} {path} is {status}, expected {expected}"
        for method, path, expected in (
            ("GET", "/invocations", 405),
            ("POST", "/nowhere", 404),
            ("GET", "/execution-parameters", 200),
            ("GET", "/", 200),
        )
        if (status := walk.client.ask(method, path).status) != expected
    ]
    if wrong:
        return failed("; ".join(wrong) + ".", "What stands before the server? It is not this one.")
    return passed("Unknown paths are 404, wrong methods 405.")


def payload_limit(walk: Walk) -> Verdict | None:
    limit = walk.config.max_payload_mb
    if not limit:
        return None
    answer = walk.client.announce("/invocations", limit * MIB + 1)
    if answer.status != 413:
        return failed(f"A body over {limit} MiB is answered {answer.said}.", "Expected 413.")
    return passed(f"A body over {limit} MiB is a 413 before it is read.")


def batch_parameters(walk: Walk) -> Verdict:
    answer = walk.client.ask("GET", "/execution-parameters")
    try:
        said = json.loads(answer.body)
        at_once, size = int(said["MaxConcurrentTransforms"]), int(said["MaxPayloadInMB"])
        strategy = said["BatchStrategy"]
    except (ValueError, KeyError, TypeError):
        return failed(
            f"/execution-parameters answers {answer.said}.",
            "Expected MaxConcurrentTransforms, BatchStrategy and MaxPayloadInMB.",
        )
    sentence = f"{at_once} at once, {size} MB, {strategy}."
    if at_once * size > 100 or strategy not in ("MULTI_RECORD", "SINGLE_RECORD"):
        return failed(sentence, "SageMaker takes 100 MB in all, MULTI_RECORD or SINGLE_RECORD.")
    return passed(sentence)


def sigterm(walk: Walk) -> Verdict:
    status, seconds = walk.server.stop()
    if status is None:
        return failed(
            f"The server still runs {STOP_LIMIT:.0f} s after SIGTERM.",
            "A thread or a signal handler of the script holds it.",
        )
    if status != 0:
        return failed(f"After SIGTERM the status is {status}.", "The log has the reason.")
    return passed(f"Ended {seconds:.1f} s after SIGTERM, with status 0.")


def errors_logged(walk: Walk) -> Verdict:
    """Run after the end, so that what was logged at the end counts."""
    noted = [line for line in walk.server.log() if _ERROR in line]
    count = len(noted) - walk.errors_of_faults
    if count > 0:
        return warned(f"The log has {count} errors: {_shown(noted[-1])}", _WHOLE_LOG)
    return passed("No good request has left an error in the log.")


def errors(walk: Walk) -> int:
    """Count the errors that the log has until now."""
    return sum(_ERROR in line for line in walk.server.log())


_ERROR = " ERROR "
_WHOLE_LOG = "The log of serve has it whole: start it on this folder."


def _shown(line: str) -> str:
    """Return a line of the log without its time and process."""
    return line.rpartition("] ")[2][:200]
