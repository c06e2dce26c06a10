"""Why the training failed, in one sentence that says what to do: the failure file's first line."""

from __future__ import annotations

import re
import signal

from skserve.config import TrainingSettings
from skserve.training.child import Ended, clock
from skserve.training.job import Job

_TRACEBACK = "Traceback (most recent call last):"
_DETAILS = 64 << 10  # characters that follow the sentence
_FRAME = re.compile(r'  File "(?P<file>[^"]+)", line (?P<line>\d+)')

# What an exception's line means for the person who started the job: a pattern, and the way out.
_WAYS_OUT = (
    (
        r"KeyError: ['\"]SM_CHANNEL_(?P<name>[^'\"]+)",
        "The job has no channel {name}; its channels are: {channels}. Add it to the job's input.",
    ),
    (
        r"KeyError: ['\"](?P<name>SM_\w+)",
        "{name} is not set in this job; its hyperparameters are: {hyperparameters}.",
    ),
    (
        r"(?:ModuleNotFoundError|ImportError): .*?['\"](?P<name>[\w.]+)",
        "Add the package to requirements.txt beside the script, or its file to the same folder.",
    ),
    (
        r"(?:MemoryError|.*Unable to allocate)",
        "The memory, {memory}, is too small for this data: take a larger instance, or read less.",
    ),
    (
        r".*error: unrecognized arguments: (?P<name>.*)",
        "The script does not take these hyperparameters: take them out of the job, or add them to "
        "its argparse.",
    ),
    (
        r".*error: (?:argument|the following arguments) ",
        "Give the hyperparameter a value that the script's argparse takes.",
    ),
    (
        r"OSError: \[Errno 30\]",
        "Input is mounted read-only: write to SM_MODEL_DIR, SM_OUTPUT_DATA_DIR or /tmp.",
    ),
    (r"OSError: \[Errno 28\]", "The disk is full: give the job a larger volume."),
)


def explain(
    program: str, ended: Ended, job: Job, config: TrainingSettings, scripted: bool
) -> tuple[str, str]:
    """Return the sentence, and the details that follow it: a traceback, or the last lines.

    `scripted` says that the child was the user's script.
    """
    last = ended.said[-_DETAILS:]
    memory = f"{config.machine.memory / 2**30:.1f} GiB"
    if ended.stopped:
        return _stopped(program, ended, job, scripted), last
    if ended.status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return (
            f"{program} was killed (SIGKILL), most likely because it needed more memory than the "
            f"{memory} there are: take a larger instance, or read less data.",
            last,
        )
    if ended.status < 0:
        known = -ended.status in list(signal.Signals)  # not all have a name
        name = signal.Signals(-ended.status).name if known else f"signal {-ended.status}"
        return f"{program} was ended by {name} after {clock(ended.seconds)}.", last
    at = ended.said.rfind(_TRACEBACK)
    details = last if at < 0 else ended.said[at : at + _DETAILS]
    reason, place = _reason(details)
    if not reason:
        return (
            f"{program} ended with exit code {ended.status} and said nothing on stderr; its log "
            "may tell more.",
            "",
        )
    sentence = f"{program} failed: {reason[:600]}{place} (exit code {ended.status})."
    return f"{sentence} {_way_out(reason, job, memory)}".rstrip(), details


def _stopped(program: str, ended: Ended, job: Job, scripted: bool) -> str:
    """Say what a stop from outside has left."""
    how = (
        f"{program} did not end within the grace after SIGTERM and was killed"
        if ended.overdue
        else f"{program} was stopped after {clock(ended.seconds)}"
    )
    left = sorted(path.name for path in job.model_dir.glob("[!.]*"))
    if left:
        return f"{how}. {job.model_dir} holds {', '.join(left[:5])}."
    way = "to save one, handle SIGTERM in the script" if scripted else "the fit had not ended"
    return f"{how}, and no model was saved: {way}."


def _reason(details: str) -> tuple[str, str]:
    """Return the exception's line and where it was raised; without one, the last line said."""
    lines = details.splitlines()
    if not details.startswith(_TRACEBACK):
        said = [line.strip() for line in lines if line.strip()]
        return (said[-1].rstrip(".") if said else ""), ""
    frames = [frame for frame in map(_FRAME.match, lines) if frame]
    # The exception's own text begins at the first line after the frames that is not indented.
    text = [line for line in lines[1:] if line.strip()]
    # An exception group is indented to its end: then the last line has to do.
    last = max(len(text) - 1, 0)
    start = next((at for at, line in enumerate(text) if not line.startswith(" ")), last)
    reason = " ".join(line.strip() for line in text[start : start + 5]).rstrip(".")
    own = [frame for frame in frames if "site-packages" not in frame["file"]
           and "/lib/python" not in frame["file"]]  # fmt: skip
    at = (own or frames)[-1:]
    place = "".join(f" ({one['file'].rsplit('/', 1)[-1]}, line {one['line']})" for one in at)
    return reason, place


def _way_out(reason: str, job: Job, memory: str) -> str:
    for pattern, sentence in _WAYS_OUT:
        if found := re.match(pattern, reason):
            name = found.groupdict().get("name", "")
            return sentence.format(
                name=name.lower() if "SM_CHANNEL_" in reason else name,
                channels=", ".join(sorted(job.inputs)) or "none",
                hyperparameters=", ".join(sorted(job.hyperparameters)) or "none",
                memory=memory,
            )
    return ""
