"""What AWS's error answers mean: whose fault it is, which bucket it is about, what may be absent.

Pure: an answer is the mapping that botocore parses a response into.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from deployment.errors import ApiError, DeployError, ModelAnswered, Unauthorised, Unreachable

_LOGIN = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
THROTTLED = frozenset({"Throttling", "ThrottlingException", "TooManyRequestsException"})
_ABSENT = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NoSuchKey",
        "NotFound",
        "NoSuchEntity",
        "ResourceNotFound",
        "ResourceNotFoundException",
        "ObjectNotFoundException",
        "RepositoryNotFoundException",
        "LifecyclePolicyNotFoundException",
        "RepositoryPolicyNotFoundException",
        "ImageNotFoundException",
    }
)
# S3's answers to a request that reached the wrong region.
_ELSEWHERE = frozenset(
    {
        "301",
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)
_NOWHERE = ("could not find", "not found", "does not exist")
_ASYNC_CAUSE = (
    "; known causes: the bucket of [async] output is in another region than the endpoint, or the "
    "role may not write there (`python deploy.py role` prints what it needs)"
)
_RENEW = "renew them (aws sso login, or new keys), then run the same command again: it resumes"


def absent(error: ApiError) -> bool:
    """Say whether this error only means that there is no such thing.

    SageMaker says so by a ValidationException with the words "Could not find" (contract 7.5), for
    jobs "Requested resource not found", and for groups of model packages "does not exist".
    """
    return error.code in _ABSENT or (
        error.code == "ValidationException"
        and any(words in error.message.lower() for words in _NOWHERE)
    )


def of_bucket(response: Mapping[str, Any], what: str, bucket: str) -> DeployError | None:
    """Say which bucket a refusal of S3 is about; the answer itself does not."""
    code = str(response.get("Error", {}).get("Code", ""))
    if code in _DENIED:
        return Unauthorised(
            f"{what} is not permitted on the bucket {bucket} ({code})",
            f"it belongs to another account, or the permission is missing; ask for it, or name a "
            f"bucket of your own with --bucket instead of {bucket}",
            code,
        )
    if code == "NoSuchBucket":
        return ApiError(f"there is no bucket {bucket} ({what}: {code})", code, _word(what))
    if code in _ELSEWHERE:
        return ApiError(
            f"the bucket {bucket} is in another region ({what}: {code}); SageMaker reads and "
            "writes buckets of the endpoint's own region",
            code,
            _word(what),
        )
    return None


def _word(what: str) -> str:
    """Return the operation of `s3 head_bucket`."""
    return what.rsplit(" ", 1)[-1]


def _of_container(text: str) -> tuple[str, str]:
    """Return sentence and hint of an error of ours; of any other container the text as it is."""
    try:
        error = json.loads(text)["error"]
        return f"{error['message']} (request {error['request_id']})", str(error.get("hint") or "")
    except (ValueError, TypeError, KeyError):
        return text, ""


def answered(response: Mapping[str, Any], what: str, operation: str) -> DeployError:
    fault = response.get("Error", {})
    code, message = str(fault.get("Code", "")), str(fault.get("Message", "")).strip()
    if code in _LOGIN:
        return Unauthorised(f"the credentials are not accepted ({code}: {message})", _RENEW, code)
    if code in _DENIED:
        return Unauthorised(f"{what} is not permitted: {message}", "ask for this permission", code)
    if code == "ModelError":
        status = response.get("OriginalStatusCode")
        body = str(response.get("OriginalMessage", message))
        said, hint = _of_container(body)
        told = f"the container answered {status}: {said}"
        return ModelAnswered(told, operation, int(status or 500), body, hint)
    if operation == "invoke_endpoint_async" and code in ("InternalFailure", "ServiceUnavailable"):
        return ApiError(f"{what}: {code}: {message}{_ASYNC_CAUSE}", code, operation)
    if response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500:
        # AWS broke down in the middle: as with a lost answer, the call may have taken effect.
        return Unreachable(f"{what}: {code}: {message}")
    tried_again = bool(response.get("ResponseMetadata", {}).get("RetryAttempts"))
    return ApiError(f"{what}: {code}: {message}", code, operation, tried_again)
