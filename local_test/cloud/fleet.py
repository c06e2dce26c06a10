"""The variants of one endpoint config with their instances, and who takes the next call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from .errors import StartError
from .instance import Instance

_STARTS_AT_ONCE = 4


@dataclass
class Variant:
    """A production or shadow variant of one config, and its instances."""

    endpoint: str
    config: str
    spec: Mapping[str, Any]  # a ProductionVariant
    model: Mapping[str, Any]  # CreateModel's request
    desired: int = 1
    weight: float = 1.0
    instances: list[Instance] = field(default_factory=list)
    starting: int = 0
    credit: float = 0.0  # of the smooth weighted round robin
    _turns: count[int] = field(default_factory=count)

    @classmethod
    def of(
        cls, endpoint: str, config: str, spec: Mapping[str, Any], model: Mapping[str, Any]
    ) -> Variant:
        """Return a variant without instances, as its config wants it."""
        desired = spec.get("InitialInstanceCount", 1)
        weight = float(spec.get("InitialVariantWeight", 1.0))
        return cls(endpoint, config, spec, model, desired, weight)

    @property
    def name(self) -> str:
        return str(self.spec["VariantName"])

    @property
    def serverless(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.spec.get("ServerlessConfig")
        return found

    @property
    def container(self) -> Mapping[str, Any]:
        """The model's ContainerDefinition."""
        found: Mapping[str, Any] = self.model["PrimaryContainer"]
        return found

    @property
    def many(self) -> bool:
        """Whether it serves many models."""
        return self.container.get("Mode") == "MultiModel"

    @property
    def serving(self) -> list[Instance]:
        return [instance for instance in self.instances if instance.alive]

    def next(self, wanted: Callable[[Instance], bool] | None = None) -> Instance | None:
        """Return the instance that takes the next call, None if there is none."""
        serving = [one for one in self.serving if wanted is None or wanted(one)]
        if not serving:
            return None
        strategy = self.spec.get("RoutingConfig", {}).get("RoutingStrategy", "")
        if strategy == "LEAST_OUTSTANDING_REQUESTS":
            return min(serving, key=lambda one: one.outstanding)
        return serving[next(self._turns) % len(serving)]


Launch = Callable[[Variant], Instance]


@dataclass
class Fleet:
    """All variants of one config. `share` is the part of the endpoint's traffic that it takes."""

    config: str
    variants: list[Variant]
    shadows: list[Variant] = field(default_factory=list)
    share: float = 0.0

    @property
    def all(self) -> list[Variant]:
        return [*self.variants, *self.shadows]

    def variant(self, name: str) -> Variant | None:
        return next((one for one in self.variants if one.name == name), None)

    def fill(self, launch: Launch, part: float = 1.0) -> None:
        """Start what is missing up to that part of each variant. Raises `StartError`."""
        missing = [
            variant for variant in self.all
            for _ in range(portion(variant.desired, part) - len(variant.serving))
        ]  # fmt: skip
        failures = []
        with ThreadPoolExecutor(_STARTS_AT_ONCE) as starters:
            for variant, started in [(one, starters.submit(launch, one)) for one in missing]:
                try:
                    variant.instances.append(started.result())
                except StartError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def shrink(self, part: float) -> None:
        """Stop instances until only that part of each variant is left."""
        gone = []
        for variant in self.all:
            keep = portion(variant.desired, part)
            gone += variant.instances[keep:]
            del variant.instances[keep:]
        stop(gone)


def portion(total: int, part: float) -> int:
    """Return that part of a number of instances, rounded up."""
    return -int(-(total * part) // 1)


def stop(instances: Iterable[Instance]) -> None:
    """Stop instances side by side, and wait for all."""
    with ThreadPoolExecutor(8) as stoppers:
        list(stoppers.map(lambda one: one.stop(), instances))


def choose(fleets: Iterable[Fleet], target: str = "") -> Variant | None:
    """Return the variant for the next call: by share and weight, or the one that is named.

    A smooth weighted round robin, so that ten calls at ten per cent are one and nine.
    """
    weighted = [
        (fleet.share * (1.0 if target else variant.weight), variant)
        for fleet in fleets if fleet.share > 0
        for variant in fleet.variants if not target or variant.name == target
    ]  # fmt: skip
    weighted = [(weight, variant) for weight, variant in weighted if weight > 0]
    if not weighted:
        return None
    for weight, variant in weighted:
        variant.credit += weight
    chosen = max((variant for _, variant in weighted), key=lambda one: one.credit)
    chosen.credit -= sum(weight for weight, _ in weighted)
    return chosen
