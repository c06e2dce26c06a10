"""What `build_and_push.sh` asks of a registry: `python -m deployment.registry WORD`.

`host` prints ECR's host name, `open` makes the repository and logs Docker in, and `verify` prints
the digest of what a registry holds under a reference, or refuses it. `open` verifies, too, so that
credentials which ask for an MFA code are opened once before a build. ECR is asked through its API,
any other registry over its HTTP API, without a login of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64decode
from typing import Any, NoReturn

import click

from deployment import image as images
from deployment import repositories, retention
from deployment.aws import Cloud
from deployment.errors import ApiError, DeployError, Failed, Refused, Usage
from deployment.image_uri import ecr_parts
from deployment.repositories import NOTHING, Wanted

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # Docker, too, talks plain HTTP to these only
_SECONDS = 30


def host(cloud: Cloud, account: str) -> str:
    """Return for example 123456789012.dkr.ecr.eu-west-1.amazonaws.com."""
    return f"{account or cloud.account}.dkr.ecr.{cloud.region}.{cloud.dns_suffix}"


def ensure(
    cloud: Cloud, repository: str, account: str, keep: int | None, wanted: Wanted = NOTHING
) -> bool:
    """Make the repository if it is missing, and say whether that was so."""
    where = {"registryId": account} if account else {}
    found = cloud.find("ecr", "describe_repositories", repositoryNames=[repository], **where)
    if found:
        repositories.complete(cloud, found["repositories"][0], wanted, where)
        if used := retention.protect(cloud, repository, where):
            click.echo(f"{len(used)} images in use are kept, whatever their age", err=True)
        return False
    try:
        cloud.call(
            "ecr",
            "create_repository",
            repositoryName=repository,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            **repositories.made_with(wanted),
            **where,
        )
    except ApiError as error:
        if error.code != "RepositoryAlreadyExistsException":  # another run was faster
            raise
    if keep is not None:
        rules = json.dumps(retention.policy(keep))
        cloud.call("ecr", "put_lifecycle_policy", repositoryName=repository,
                   lifecyclePolicyText=rules, **where)  # fmt: skip
    repositories.share(cloud, repository, wanted, where)
    return True


def password(cloud: Cloud, account: str) -> str:
    """Return the password for `docker login --username AWS`, good for twelve hours."""
    where: dict[str, Any] = {"registryIds": [account]} if account else {}
    token = cloud.call("ecr", "get_authorization_token", **where)["authorizationData"][0]
    return b64decode(token["authorizationToken"]).decode().split(":", 1)[1]


def look(reference: str, cloud: Cloud | None) -> images.Image | None:
    """Return the image that a registry holds under `reference`, None if it holds none."""
    if ecr_parts(reference):
        try:
            return images.in_ecr(cloud or Cloud(), reference)
        except Refused:
            return None
    return _over_http(reference)


def _over_http(reference: str) -> images.Image | None:
    registry, _, rest = reference.partition("/")
    name, _, version = rest.rpartition("@") if "@" in rest else rest.rpartition(":")
    if not name:
        raise Usage(f"{reference} must be REGISTRY/REPOSITORY:TAG")
    scheme = "http" if registry.rsplit(":", 1)[0] in _LOOPBACK else "https"
    base = f"{scheme}://{registry}/v2/{name}"
    found = _get(f"{base}/manifests/{version}", ", ".join(images.MEDIA_TYPES))
    if found is None:
        return None
    manifest, media_type = found
    digest = images.config_digest(manifest)
    config = _get(f"{base}/blobs/{digest}", "*/*") if digest else None
    return images.parse(manifest, media_type, json.loads(config[0]) if config else None)


def _get(url: str, accept: str) -> tuple[bytes, str] | None:
    """Return the body and media type at `url`, None for 404."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            return response.read(), response.headers.get_content_type()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Failed(f"{url} answered {error.code}", "is the registry open to read?") from error
    except OSError as error:
        raise Failed(f"the registry cannot be reached: {url}: {error}") from error


def verify(reference: str, architecture: str, cloud: Cloud | None) -> str | None:
    """Return the digest under `reference`, None if there is none; `Refused` if SageMaker would."""
    found = look(reference, cloud)
    if found is None:
        return None
    faults = list(images.faults(found, architecture))
    if faults:
        reasons = "; ".join(reason for reason, _ in faults)
        raise Refused(f"SageMaker would refuse {reference}: {reasons}", faults[0][1])
    return found.digest


@click.group(help=__doc__.splitlines()[0])
@click.option("--region")
@click.option("--profile")
@click.option("--account", default="", help="of the registry, if not that of the credentials")
@click.pass_context
def main(context: click.Context, region: str | None, profile: str | None, account: str) -> None:
    context.obj = (lambda: Cloud(region, profile)), account


@main.command("host")
@click.pass_obj
def _host(given: Any) -> None:
    """Print the host name of the account's registry."""
    click.echo(host(given[0](), given[1]))


@main.command("open")
@click.argument("repository")
@click.argument("tag")
@click.option("--architecture", default="amd64")
@click.option("--keep", type=click.IntRange(min=1), help="images to keep: sets a lifecycle rule")
@click.option("--kms-key", default="", help="of a new repository")
@click.option("--repository-tag", "tags", multiple=True, metavar="KEY=VALUE")
@click.option("--share", multiple=True, metavar="ACCOUNT", help="may pull")
@click.pass_obj
def _open(given: Any, repository: str, tag: str, architecture: str, keep: int | None,
          kms_key: str, tags: tuple[str, ...], share: tuple[str, ...]) -> None:  # fmt: skip
    """Print the host, and below it the digest under TAG if there is one; else log Docker in.

    The repository is made if it is missing: scan on push, immutable tags.
    """
    cloud, account = given[0](), given[1]
    name = host(cloud, account)
    made = ensure(cloud, repository, account, keep, repositories.asked(kms_key, tags, share))
    click.echo(f"repository {repository} {'made' if made else 'exists'}", err=True)
    found = verify(f"{name}/{repository}:{tag}", architecture, cloud)
    if not found:
        _log_in(name, password(cloud, account))
    click.echo(f"{name}\n{found or ''}")


def _log_in(name: str, secret: str) -> None:
    click.echo(f"+ docker login --username AWS {name}", err=True)
    words = ["docker", "login", "--username", "AWS", "--password-stdin", name]
    try:
        done = subprocess.run(words, input=secret.encode(), stdout=sys.stderr, check=False)
    except OSError as error:
        raise Failed(f"docker cannot be run: {error}", "install Docker") from error
    if done.returncode:
        raise Failed(f"docker login to {name} failed", "is the Docker engine running?")


@main.command("verify")
@click.argument("reference")
@click.option("--architecture", default="amd64")
@click.pass_obj
def _verify(given: Any, reference: str, architecture: str) -> None:
    """Print the digest under REFERENCE, or nothing if there is none; exit 3 if it is no good."""
    cloud = given[0]() if ecr_parts(reference) else None
    click.echo(verify(reference, architecture, cloud) or "")


def run() -> NoReturn:
    """Run a word; a failure is one sentence on stderr and its exit code."""
    try:
        main(standalone_mode=False)
    except DeployError as error:
        click.echo(f"error: {error.message}", err=True)
        if error.hint:
            click.echo(f"way out: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    sys.exit(0)


if __name__ == "__main__":
    run()
