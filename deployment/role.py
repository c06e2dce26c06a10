"""The word `role`: the execution role's documents printed, or the role made.

A role may serve several endpoints, so each has a policy of its own in it, and what one endpoint
needs is never taken from another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from deployment import grants, policies, resolve
from deployment.errors import Refused
from deployment.iam import Role, find
from deployment.session import Words, carried_out, connect, connect_or_assume
from deployment.settings import Settings
from deployment.state import OWNER_TAG
from deployment.step import Call, Plan

_POLICY_CHARACTERS = 10_240  # IAM's limit for all inline policies of a role together


def role(words: Words, create: bool) -> None:
    """Print the trust policy and permissions of the execution role, or make it."""
    settings, talk = words.settings(), words.talk
    cloud = connect(settings) if create else connect_or_assume(settings, talk)
    partition, account = (cloud.partition, cloud.account) if cloud else ("aws", "ACCOUNT")
    region = cloud.region if cloud else settings.region or "REGION"
    trust = policies.trust(partition, account if cloud else "")
    permissions = policies.permissions(settings, partition, region, account)
    if not create or cloud is None:
        talk.result({"trust": trust, "permissions": permissions})
        return
    name = settings.role.rsplit("/", 1)[-1]
    if not name:
        raise Refused("the role has no name yet", "set role in endpoint.toml, or --role NAME")
    found = find(cloud, name)
    if found is None:
        planned = policies.create(settings, name, (trust, permissions))
    else:
        planned = complete(settings, found, (trust, permissions), words)
    for note in planned.notes:
        talk.say(note)
    if not carried_out(words, cloud, planned):
        return
    if not planned.changes:
        talk.say(f"the role {name} has what {settings.name} needs; nothing to change")
    arn = resolve.role_arn(cloud, name)
    talk.result({"role": arn}, arn)


def complete(
    settings: Settings,
    found: Role,
    documents: tuple[policies.Document, policies.Document],
    words: Words,
) -> Plan:
    """Plan what an existing role lacks. Raises `Refused` for a role that is not ours to change."""
    trust, permissions = documents
    steps = [*_ownership(settings, found, words.adopt), *_trust(found, trust, words.force)]
    wanted, obsolete, notes = _policies(settings, found, permissions, words.force)
    _check_size(found, wanted, obsolete)
    steps += [policies.put(found.name, policy, document) for policy, document in wanted.items()
              if document != found.inline.get(policy)]  # fmt: skip
    steps += [policies.remove(found.name, policy) for policy in obsolete]
    boundary = settings.permissions_boundary
    if boundary and boundary != found.boundary:
        limit = {"RoleName": found.name, "PermissionsBoundary": boundary}
        steps.append(Call("iam", "put_role_permissions_boundary", limit, "its boundary"))
    return Plan(settings.name, tuple(steps), notes=tuple(notes))


def _ownership(settings: Settings, found: Role, adopt: bool) -> Iterator[Call]:
    if OWNER_TAG in found.tags:
        return
    if not adopt:
        raise Refused(
            f"the role {found.name} was made elsewhere (it has no tag {OWNER_TAG}), and is left as "
            "it is",
            "put the permissions that `python deploy.py role` prints on it yourself, name another "
            "role, or take this one over with --adopt",
        )
    tag = {"RoleName": found.name, "Tags": [{"Key": OWNER_TAG, "Value": settings.name}]}
    yield Call("iam", "tag_role", tag, "its tag", effect="change")


def _trust(found: Role, trust: policies.Document, force: bool) -> Iterator[Call]:
    if grants.trusts(found.trust, found.arn.split(":")[4]):
        return
    if not force:
        raise Refused(
            f"the role {found.name} does not let sagemaker.amazonaws.com assume it",
            "put the trust policy that `python deploy.py role` prints on it; --force replaces the "
            "one that is there",
        )
    text = {"RoleName": found.name, "PolicyDocument": json.dumps(trust, sort_keys=True)}
    yield Call("iam", "update_assume_role_policy", text, "its trust policy")


Policies = dict[str, Mapping[str, Any]]


def _policies(
    settings: Settings, found: Role, permissions: Mapping[str, Any], force: bool
) -> tuple[Policies, list[str], list[str]]:
    """Return the policies to write, the names to remove, and what is said about them."""
    own = policies.policy_name(settings.name)
    wanted: Policies = {own: permissions}
    obsolete, notes = [], []
    old = found.inline.get(policies.SHARED)
    if old is not None:
        # One policy for all endpoints, as earlier versions wrote it: it becomes its endpoint's own.
        owner = policies.endpoint_of(old)
        if owner:
            name = policies.policy_name(owner)
            base = wanted.get(name) or found.inline.get(name)
            wanted[name] = grants.merged(base, old) if base else old
            obsolete.append(policies.SHARED)
            notes.append(f"the policy {policies.SHARED} becomes {name}, with all that it allows")
        else:
            notes.append(f"the policy {policies.SHARED} names no endpoint and stays as it is")
    if force:
        wanted[own] = permissions
    elif own in found.inline:
        wanted[own] = grants.merged(wanted[own], found.inline[own])
    if kept := sum(str(one.get("Sid")).startswith("Kept") for one in wanted[own]["Statement"]):
        notes.append(f"{own} keeps {kept} statements that {settings.name} does not need now; "
                     "--force removes them")  # fmt: skip
    return wanted, obsolete, notes


def _check_size(found: Role, wanted: Policies, obsolete: list[str]) -> None:
    """Refuse what IAM would: white space does not count."""
    after = {k: v for k, v in {**found.inline, **wanted}.items() if k not in obsolete}
    size = sum(len(json.dumps(one, separators=(",", ":"))) for one in after.values())
    if size > _POLICY_CHARACTERS:
        raise Refused(
            f"the inline policies of {found.name} would have {size} characters, and IAM allows "
            f"{_POLICY_CHARACTERS}",
            "give this endpoint a role of its own with --role NAME",
        )
