"""Holds the compiled features against those in Python, before they are believed."""

import random

import msgspec

from features import compiled
from features.definition import (
    Feature,
    count,
    distinct,
    ewm,
    field,
    last,
    maximum,
    mean,
    minimum,
    since_last,
    std,
    total,
)
from features.feature_set import FeatureSet
from features.profile import Profile

_EVENTS = 300
_WINDOWS = ("12s", "2m", "1h")


class _Sale(msgspec.Struct, frozen=True):
    shop: str
    customer: str
    amount: float


def every_feature(source: str, category: str, by: tuple[str, ...]) -> list[Feature]:
    """One of each kind that a profile is needed for, of a number and a category of the event."""
    features = [last(source, by=by, local=True), since_last(by=by, local=True)]
    for including in (False, True):
        features.append(ewm(source, "1m", by=by, local=True, including=including))
        features.append(count(*_WINDOWS, by=by, local=True, including=including))
        features.append(distinct(category, *_WINDOWS, by=by, local=True, including=including))
        for make in (total, mean, std, minimum, maximum):
            features.append(make(source, *_WINDOWS, by=by, local=True, including=including))
    return features


def prove() -> None:
    """Compile, and hold some events, late ones among them, against Python. Raises `CompiledError` for another bit."""
    types = {"shop": str, "customer": str, "amount": float, "at": int}
    definitions = [field("amount"), *every_feature("amount", "customer", ()), last("amount", by="customer", local=True)]
    features = FeatureSet(definitions, types, "shop", "at")
    python, faster = features._compute, features._compiler.faster()
    chance, at = random.Random(1), 1_700_000_000_000
    ours: dict[str, Profile] = {}
    theirs: dict[str, Profile] = {}
    for _ in range(_EVENTS):
        at += chance.choice([100, 3_000, 90_000, -2_000, -400_000])
        sale = _Sale(chance.choice("ab"), str(chance.randrange(90)), chance.gauss(50, 30))
        if python(sale, sale.shop, at, theirs) != faster(sale, sale.shop, at, ours) or ours != theirs:
            message = "compiled, features are other numbers than in Python on this machine"
            raise compiled.CompiledError(message)
