"""What an instance costs, from AWS's own Price List; otherwise "unknown", never a guess.

The filters could not be tried against the live service here, so the answer is used only if it is
unambiguous: one price per hour, for exactly this instance type, hosting and region.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from deployment.aws import Cloud
from deployment.errors import DeployError
from deployment.settings import Settings

_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}  # where the Price List is served

_HOURS = 730  # of a month, as AWS counts them


def hourly(cloud: Cloud, instance_type: str) -> str:
    """Return for example `0.115 USD`, the price of one instance for an hour, or `unknown`."""
    at = _REGIONS.get(cloud.partition)
    if at is None:
        return "unknown"
    filters = [
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": cloud.region},
        {"Type": "TERM_MATCH", "Field": "instanceName", "Value": instance_type},
    ]
    try:
        answer = cloud.call(
            "pricing", "get_products", at=at, ServiceCode="AmazonSageMaker", Filters=filters
        )
        found = {price for text in answer["PriceList"] for price in _hosting(json.loads(text))}
    except (DeployError, KeyError, ValueError):
        return "unknown"
    return found.pop() if len(found) == 1 else "unknown"


def told(cloud: Cloud, settings: Settings) -> tuple[bool, str]:
    """Return whether all prices are known, and a sentence: by hour, by month, with scaling."""
    machines, shadow = settings.machines, settings.shadow
    fleets = [("", machines.type, machines.count)]
    if shadow is not None:
        fleets.append(("shadow ", shadow.type or machines.type, shadow.count))
    fleets += [(f"{name} ", one.type or machines.type, one.count)
               for name, one in settings.variants.items()]  # fmt: skip
    prices = {kind: hourly(cloud, kind) for _, kind, _ in fleets}
    text = "; ".join(f"{what}{count} x {kind}, each {prices[kind]} per hour"
                     for what, kind, count in fleets)  # fmt: skip
    if "unknown" in prices.values():
        return False, text
    unit = prices[machines.type].rsplit(" ", 1)[-1]
    amounts = {kind: float(one.split()[0]) for kind, one in prices.items()}
    month = _HOURS * sum(amounts[kind] * count for _, kind, count in fleets)
    text += f"; {month:,.2f} {unit} a month"
    if settings.scaling is not None and settings.scaling.most > machines.count:
        more = settings.scaling.most - machines.count
        most = month + _HOURS * amounts[machines.type] * more
        text += f", up to {most:,.2f} {unit} at scaling.max = {settings.scaling.most}"
    return True, text


def _hosting(product: Any) -> Iterator[str]:
    """Yield the on-demand prices per hour of a product, if it is hosting."""
    attributes = product["product"]["attributes"]
    kind = f"{attributes.get('component', '')} {attributes.get('platoinstancetype', '')}"
    if "hosting" not in kind.lower():
        return
    for term in product["terms"]["OnDemand"].values():
        for dimension in term["priceDimensions"].values():
            if dimension["unit"].lower() in ("hrs", "hours", "hour"):
                for currency, amount in dimension["pricePerUnit"].items():
                    yield f"{float(amount):g} {currency}"
