"""Where the user's code is, and bringing it here.

The order of AWS's image: SAGEMAKER_SUBMIT_DIRECTORY (a folder, a tar.gz, `file://`, `s3://`), then
`code/` in the model directory, then a script beside the model. Nothing is written but below the
temporary directory. All errors are `StartError`.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from skserve import archive, privileges
from skserve.config import ModelSettings
from skserve.errors import StartError
from skserve.inference.artifact import readable
from skserve.inference.integrity import check_digest
from skserve.inference.requirements import install

log = logging.getLogger("skserve")

DEFAULT_PROGRAM = "inference.py"


@dataclass(frozen=True)
class Source:
    """A folder with the user's code; `library` holds what pip installed for it.

    `program` is its script, or None where there are only the modules that the model was made with.
    """

    folder: Path
    program: str | None
    library: Path | None = None


@readable()
def fetch(directory: Path, config: ModelSettings) -> Source | None:
    """Find the user's code for the model in `directory`, bring it here, install what it needs.

    Returns None where there is no code, which is fine unless SAGEMAKER_PROGRAM names some.
    """
    check_digest(directory, config)
    program = _program(config)
    for folder in _candidates(directory, config):
        if (folder / program).is_file():
            return Source(folder, program, install(folder))
    if config.program or config.submit_directory:
        where = config.submit_directory or f"{directory}/code or {directory}"
        raise StartError(
            f"There is no {program} in {where}; SAGEMAKER_PROGRAM and SAGEMAKER_SUBMIT_DIRECTORY "
            "say where the script is."
        )
    return _without_script(directory / archive.CODE_FOLDER)


def beside(directory: Path, config: ModelSettings) -> Source | None:
    """Return the code that the model in `directory` brings itself, wherever others' code is.

    For many models in one container, where SAGEMAKER_SUBMIT_DIRECTORY is for those without any.
    """
    program = _program(config)
    own = replace(config, submit_directory=None)
    check_digest(directory, own)
    for folder in _candidates(directory, own):
        if (folder / program).is_file():
            return Source(folder, program, install(folder))
    return None if config.submit_directory else _without_script(directory / archive.CODE_FOLDER)


def shared(config: ModelSettings) -> Source | None:
    """Fetch, once for all models, the code of those that bring none. Raises StartError.

    A process of its own does it without root: to install a package may be to run it.
    """
    where = config.submit_directory
    if where is None or (where.startswith("/") and not Path(where).exists()):
        return None  # such as /opt/ml/model/code, which each model then has in its own folder
    apart = replace(config, model_dir=Path(tempfile.gettempdir()) / "skserve-none")

    def fetched() -> list[str | None]:
        privileges.give_up_root(apart)
        found = fetch(apart.model_dir, apart)
        assert found is not None  # with a submit directory, there is code or an error
        library = None if found.library is None else str(found.library)
        return [str(found.folder), found.program, library]

    folder, program, library = _in_child(fetched)
    assert folder
    return Source(Path(folder), program, Path(library) if library else None)


def _in_child(work: Callable[[], list[str | None]]) -> list[str | None]:
    """Do `work` in a process of its own. Raises the StartError that it raises."""
    read, write = os.pipe()
    child = os.fork()  # this process has one thread, or the child might find a lock held
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as answer:
            try:
                json.dump(work(), answer)
            except StartError as error:
                json.dump(str(error), answer)
            finally:
                answer.flush()
                os._exit(0)  # what is to be done at the parent's end is not the child's to do
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    said = json.loads(text) if text else "The process that was to fetch the code has ended."
    if isinstance(said, str):
        raise StartError(said)
    return list(said)


def _program(config: ModelSettings) -> str:
    return (config.program or DEFAULT_PROGRAM).removesuffix(".py") + ".py"


def _without_script(code: Path) -> Source | None:
    """Take a code folder that has modules or requirements, and no script.

    It is mentioned, because a script of another name is a common slip.
    """
    if not code.is_dir():
        return None
    scripts = ", ".join(sorted(path.name for path in code.glob("*.py"))) or "no .py file"
    log.info(
        "%s/ has no %s; it holds %s. Name the script with SAGEMAKER_PROGRAM.",
        *(code.name, DEFAULT_PROGRAM, scripts),
    )
    return Source(code, None, install(code))


def _candidates(directory: Path, config: ModelSettings) -> list[Path]:
    if config.submit_directory:
        return [bring(config.submit_directory, config)]
    return [directory / archive.CODE_FOLDER, directory]


def bring(location: str, config: ModelSettings, named: str = "SAGEMAKER_SUBMIT_DIRECTORY") -> Path:
    """Return a local folder with the code at `location`; an archive is unpacked.

    `named` is the setting that gave the location, for the sentence of a StartError.
    """
    if location.startswith("s3://"):
        path = _download(location, config, named)
    elif location.startswith("file://"):
        path = Path(unquote(urlsplit(location).path))
    else:
        path = Path(location)
    if path.is_dir():
        return path
    if not path.is_file():
        raise StartError(f"{named} is {location}, which does not exist.")
    if path.suffix == ".py":
        return path.parent
    target = Path(tempfile.mkdtemp(prefix="skserve-code-"))
    try:
        archive.extract(path, target)
    except ValueError as error:
        raise StartError(f"{named} is {location}, but {error}.") from error
    return target


def _download(uri: str, config: ModelSettings, named: str) -> Path:
    """Bring one S3 object here, in seconds or with a reason.

    boto3 is imported in a process of its own, because the requirements.txt of the code may replace
    it or what it uses: a module that is imported once stays.
    """
    [path] = _in_child(lambda: [str(_downloaded(uri, config, named))])
    assert path
    return Path(path)


def _downloaded(uri: str, config: ModelSettings, named: str) -> Path:
    import boto3
    from botocore.config import Config as BotoConfig
    from botocore.exceptions import BotoCoreError, ClientError

    place = urlsplit(uri)
    target = Path(tempfile.mkdtemp(prefix="skserve-s3-")) / Path(place.path).name
    limits = BotoConfig(connect_timeout=3, read_timeout=30, retries={"total_max_attempts": 2})
    try:
        client = boto3.client(
            "s3", region_name=config.region, endpoint_url=config.s3_endpoint, config=limits
        )
        client.download_file(place.netloc, place.path.lstrip("/"), str(target))
    except (BotoCoreError, ClientError, OSError, ValueError) as error:
        raise StartError(
            f"{named} is {uri}, which cannot be downloaded: {error}. With network isolation the "
            "code must be in the model archive, below code/, or in a channel of the training job."
        ) from error
    return target
