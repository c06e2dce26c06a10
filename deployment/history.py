"""Which configs have served an endpoint and which failed, kept in one tag of the endpoint.

The tag's value is the digests of config names in the order in which they came into service, the
newest last; one that failed or was rolled back from has a `-` before it. Configs that an older
version of this tool made are in no list: they count as served, in the order of their creation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployment.errors import Refused
from deployment.state import Config, State

TAG = "skserve:history"
_BAD = "-"
_MOST = 18  # digests of twelve characters, each with its mark and a space, in a value of 256


@dataclass(frozen=True)
class Choice:
    """The config to go back to, and the newer ones that are passed over because they failed."""

    config: Config
    skipped: tuple[str, ...] = ()


def _digest(name: str) -> str:
    return name.rsplit("-", 1)[-1]


def _entries(tags: Mapping[str, str]) -> dict[str, bool]:
    """Return whether each digest is good, in the order of the tag."""
    words = tags.get(TAG, "").split()
    return {word.removeprefix(_BAD): not word.startswith(_BAD) for word in words}


def _text(entries: Mapping[str, bool]) -> str:
    words = [digest if good else _BAD + digest for digest, good in entries.items()]
    return " ".join(words[-_MOST:])


def _known(state: State) -> dict[str, bool]:
    """Return the entries, with the config that serves now among them."""
    endpoint = state.endpoint
    if endpoint is None:
        return {}
    entries = _entries(endpoint.tags)
    if endpoint.status == "InService" and endpoint.config:
        entries.setdefault(_digest(endpoint.config), True)
    return entries


def served(state: State, config: str, left: str = "") -> str:
    """Return the tag's value once `config` serves; `left` is the one that was rolled back from."""
    entries = _known(state)
    if left:
        entries[_digest(left)] = False
    entries.pop(_digest(config), None)
    return _text(entries | {_digest(config): True})


def failed(state: State, config: str) -> str:
    """Return the tag's value once `config` has failed."""
    return _text(_known(state) | {_digest(config): False})


def bad(state: State, config: str) -> bool:
    """Say whether `config` failed or was rolled back from."""
    tags = state.endpoint.tags if state.endpoint else {}
    return not _entries(tags).get(_digest(config), True)


def target(state: State, current: Config, name: str = "") -> Choice:
    """Return the config to go back to: `name`, or the last good one that served before `current`.

    Raises `Refused` where there is none.
    """
    if name:
        return Choice(_named(state, current, name))
    order = _order(state)
    names = [config.name for config in order]
    before = order[: names.index(current.name)] if current.name in names else order
    skipped = [config.name for config in reversed(before) if bad(state, config.name)]
    for config in reversed(before):
        if not bad(state, config.name):
            # Said of every newer one that failed, also where it left its place by a rollback.
            newer = [one.name for one in state.configs if one.created > config.created
                     and one.name != current.name and bad(state, one.name)]  # fmt: skip
            return Choice(config, tuple(newer))
    told = f"no config of {state.endpoint.name if state.endpoint else ''} older than {current.name}"
    if skipped:
        raise Refused(
            f"{told} is good: {', '.join(skipped)} failed or was rolled back from",
            f"name one all the same: python deploy.py rollback {skipped[0]}",
        )
    raise Refused(f"{told} is kept", "keep more of them with `keep = N` in endpoint.toml")


def _named(state: State, current: Config, name: str) -> Config:
    if name == current.name:
        raise Refused(f"{name} is the config in use", "name another, or none")
    for config in state.configs:
        if config.name == name:
            return config
    kept = ", ".join(config.name for config in state.configs) or "none"
    raise Refused(f"there is no config {name} of this endpoint", f"kept are: {kept}")


def _order(state: State) -> list[Config]:
    """Return our configs in the order in which they came into service, the newest last."""
    entries = list(_entries(state.endpoint.tags if state.endpoint else {}))
    listed = [c for c in state.configs if _digest(c.name) in entries]
    listed.sort(key=lambda config: entries.index(_digest(config.name)))
    first = min((config.created for config in listed), default=None)
    # A config made after the list began and not in it never came into service.
    unlisted = [c for c in state.configs if c not in listed
                and (first is None or c.created < first)]  # fmt: skip
    return [*_oldest_first(unlisted), *listed]


def _oldest_first(configs: Iterable[Config]) -> list[Config]:
    return sorted(configs, key=lambda config: config.created)
