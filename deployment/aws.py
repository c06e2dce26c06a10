"""The only module that imports boto3: sessions, clients, and errors told as ours.

Nothing here decides anything. `Cloud.call` makes one API call and raises only classes of
`deployment.errors`; botocore retries throttling and lost connections by itself, in its standard
mode. Credentials come from botocore's own chain and are never read or shown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import exceptions
from botocore.config import Config
from botocore.credentials import JSONFileCache

from deployment.answers import absent, answered, of_bucket
from deployment.errors import (
    ApiError,
    DeployError,
    Failed,
    NoRegion,
    Unauthorised,
    Unreachable,
    Usage,
)
from deployment.step import Call

Answer = dict[str, Any]

# Seconds. SageMaker gives an invocation 60, so the client must outlive that to see its error.
_CONNECT, _READ = 10, 70
# Six attempts back off over about half a minute: an account's API rate recovers within that.
_ATTEMPTS = 6

_REGION = re.compile(r"[a-z]{2,8}(-[a-z]+)+-\d+")
# EOFError is what getpass raises where botocore asks for an MFA code without a terminal.
_FAULTS = (exceptions.BotoCoreError, exceptions.ClientError, EOFError)
_NO_LOGIN = (
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.SSOError,
    exceptions.LoginError if hasattr(exceptions, "LoginError") else exceptions.SSOError,
)


class Cloud:
    """One account and region. `region` and `profile` may be None: then botocore's own apply."""

    def __init__(self, region: str | None = None, profile: str | None = None) -> None:
        core = botocore.session.Session(profile=profile)
        try:
            _keep_assumed_roles(core)
            self._session = boto3.session.Session(region_name=region, botocore_session=core)
        except exceptions.ProfileNotFound as error:
            raise Usage(str(error), "name one from ~/.aws/config with --profile") from error
        found = self._session.region_name
        if not found:
            raise NoRegion(
                "no region is given", "set region in endpoint.toml, --region or AWS_DEFAULT_REGION"
            )
        self.region: str = found
        self._core = core
        self._clients: dict[tuple[str, str], Any] = {}
        if not _REGION.fullmatch(found):
            raise Usage(f"there is no region {found!r}", self._doubt())

    def _doubt(self) -> str:
        """Say that this boto3 does not know the region, if so: it may be newer, or a slip."""
        session = self._session
        known = {region for partition in session.get_available_partitions()
                 for region in session.get_available_regions("sagemaker", partition)}  # fmt: skip
        if self.region in known:
            return ""
        near = ", ".join(difflib.get_close_matches(self.region, sorted(known), 3)) or "none is near"
        return f"this boto3 does not know the region {self.region}; near it are: {near}"

    @cached_property
    def identity(self) -> Answer:
        """Who the credentials belong to: Account, Arn, UserId."""
        return self.call("sts", "get_caller_identity")

    @property
    def account(self) -> str:
        """The twelve digits of the account."""
        return str(self.identity["Account"])

    @property
    def partition(self) -> str:
        """`aws`, `aws-cn`, `aws-us-gov` and so on."""
        try:
            return str(self._session.get_partition_for_region(self.region))
        except exceptions.UnknownRegionError as error:
            raise Usage(f"there is no region {self.region!r}") from error

    @property
    def dns_suffix(self) -> str:
        """`amazonaws.com`, or what the partition has instead."""
        known = self._core.get_data("endpoints")["partitions"]
        return next(str(one["dnsSuffix"]) for one in known if one["partition"] == self.partition)

    def values(self, service: str, shape: str) -> list[str]:
        """Return the values that this botocore knows for an enumerated shape."""
        return list(self._client(service).meta.service_model.shape_for(shape).enum)

    def call(self, service: str, operation: str, *, at: str = "", **arguments: Any) -> Answer:
        """Make one call, in the region `at` if given; streamed bodies are read whole."""
        try:
            client = self._client(service, at)
            answer: Answer = getattr(client, operation)(**arguments)
            if hasattr(answer.get("Body"), "read"):
                answer["Body"] = answer["Body"].read()
            return answer
        except _FAULTS as error:
            failed = told(error, service, operation, arguments)
            if isinstance(failed, Unreachable):
                failed.hint = failed.hint or self._doubt()
            raise failed from error

    def once(self, service: str, operation: str) -> Answer:
        """Make one call without arguments in one attempt: for what may be missing in a region."""
        config = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1})
        try:
            client = self._session.client(service, region_name=self.region, config=config)
            answer: Answer = getattr(client, operation)()
            return answer
        except _FAULTS as error:
            raise told(error, service, operation) from error

    def find(self, service: str, operation: str, **arguments: Any) -> Answer | None:
        """Make one call, and return None where the thing it asks for does not exist."""
        try:
            return self.call(service, operation, **arguments)
        except ApiError as error:
            if absent(error):
                return None
            raise

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        """Yield the items below `key` of every page."""
        try:
            for page in self._client(service).get_paginator(operation).paginate(**arguments):
                yield from page.get(key) or ()
        except _FAULTS as error:
            raise told(error, service, operation, arguments) from error

    def events(self, service: str, operation: str, **arguments: Any) -> Iterator[Answer]:
        """Make one call, and yield the events of the stream that answers it."""
        try:
            yield from getattr(self._client(service), operation)(**arguments)["Body"]
        except _FAULTS as error:
            raise told(error, service, operation, arguments) from error

    def lines(self, bucket: str, key: str) -> Iterator[bytes]:
        """Yield the lines of an S3 object without holding it whole."""
        try:
            body = self._client("s3").get_object(Bucket=bucket, Key=key)["Body"]
            yield from body.iter_lines()
        except _FAULTS as error:
            raise told(error, "s3", "get_object", {"Bucket": bucket}) from error

    def apply(self, call: Call) -> Answer:
        """Make the call of a plan; a file is sent in parts, so its size does not matter."""
        if call.file is None:
            return self.call(call.service, call.operation, **call.arguments)
        extra = {
            key: value for key, value in call.arguments.items() if key not in ("Bucket", "Key")
        }
        try:
            self._client("s3").upload_file(
                str(call.file), call.arguments["Bucket"], call.arguments["Key"], ExtraArgs=extra
            )
        except boto3.exceptions.Boto3Error as error:
            # S3Transfer wraps what S3 answered; the answer itself has the code.
            cause = error.__context__
            answered = cause if isinstance(cause, exceptions.ClientError) else error
            raise told(answered, "s3", "put_object", call.arguments) from error
        except _FAULTS as error:
            raise told(error, "s3", "put_object", call.arguments) from error
        return {}

    def _client(self, service: str, at: str = "") -> Any:
        region = at or self.region
        if (service, region) not in self._clients:
            config = Config(
                connect_timeout=_CONNECT,
                read_timeout=_READ,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            )
            self._clients[service, region] = self._session.client(
                service, region_name=region, config=config
            )
        return self._clients[service, region]


def _keep_assumed_roles(core: botocore.session.Session) -> None:
    """Cache the credentials of an assumed role in botocore's folder, so MFA is asked for once."""
    roles = core.get_component("credential_provider").get_provider("assume-role")
    roles.cache = JSONFileCache()


def told(
    error: Exception, service: str, operation: str, arguments: Mapping[str, Any] | None = None
) -> DeployError:
    """Translate an exception of botocore into one of ours."""
    what = f"{service} {operation}"
    if isinstance(error, exceptions.ClientError):
        bucket = str((arguments or {}).get("Bucket", "")) if service == "s3" else ""
        if bucket and (found := of_bucket(error.response, what, bucket)):
            return found
        return answered(error.response, what, operation)
    if isinstance(error, exceptions.NoCredentialsError):
        return Unauthorised(f"no usable credentials: {error}", "log in, or name a --profile")
    if isinstance(error, _NO_LOGIN):
        hint = "log in (aws sso login, or new keys), or name another --profile"
        return Unauthorised(f"no usable credentials: {error}", hint, type(error).__name__)
    if isinstance(error, EOFError):
        return Unauthorised(
            "the profile asks for an MFA code, and there is no terminal to ask on",
            "run any word once in a terminal, for example `python deploy.py list`: the session is "
            "kept in ~/.aws/boto/cache; or export temporary credentials",
            "MfaRequired",
        )
    # Where no connection is made, it is one of the first kind; where one breaks, of the second.
    if isinstance(error, (exceptions.ConnectionError, exceptions.HTTPClientError)):
        return Unreachable(f"{what} got no answer: {error}", _not_aws(error))
    return Failed(f"{what}: {error}")


def _not_aws(error: Exception) -> str:
    """Return the way out where the call did not go to AWS itself."""
    url = str(getattr(error, "kwargs", {}).get("endpoint_url", ""))
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
        return ""
    return (
        "that is this machine, as AWS_ENDPOINT_URL says: start `make cloud`, or unset the variable"
    )
