"""Pure: windowed aggregates, profiles and the feature vector. No Kafka, no clock, no I/O."""

from features.definition import (
    Feature,
    count,
    day_of_week,
    distinct,
    ewm,
    field,
    function,
    hashed,
    hour_of_day,
    last,
    maximum,
    mean,
    minimum,
    one_hot,
    ratio,
    since_last,
    std,
    total,
)
from features.errors import FeatureDefinitionError, FeatureError
from features.feature_set import FeatureSet
from features.profile import Profile

__all__ = [
    "Feature",
    "FeatureDefinitionError",
    "FeatureError",
    "FeatureSet",
    "Profile",
    "count",
    "day_of_week",
    "distinct",
    "ewm",
    "field",
    "function",
    "hashed",
    "hour_of_day",
    "last",
    "maximum",
    "mean",
    "minimum",
    "one_hot",
    "ratio",
    "since_last",
    "std",
    "total",
]
