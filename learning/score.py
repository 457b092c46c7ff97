"""One event to one prediction: drop the duplicate, compute the features, predict, let the prediction wait.

    event -> seen? -> features (profile as of just before it) -> model at version v -> pending entry with that vector

The score agent calls it, and `learning.backtest`. It must never learn: the vector is learned when its label comes.
"""

import traceback
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from features import FeatureError
from learning.intake import Invalid
from learning.label import PendingLabels, Resolution
from learning.learn import Learner, ModelError
from learning.records import Prediction

if TYPE_CHECKING:
    from pipelines.definition import Pipeline


class Scored(msgspec.Struct, frozen=True, gc=False):
    """A prediction was made.

    Attributes:
        prediction: the prediction.
        resolution: what became of the label that had come before its event, if one had.
        late: whether the event was too old for some window to count it.
    """

    prediction: Prediction
    resolution: Resolution | None
    late: bool


class Duplicate(msgspec.Struct, frozen=True):
    """An event of this id was scored before."""

    id: str


def score(  # noqa: PLR0917  # a step of the stream: what it reads, then what came
    pipeline: "Pipeline",
    learner: Learner,
    profiles: MutableMapping[str, Any],
    pending: PendingLabels,
    obj: Any,
    key: str,
    id: str,  # noqa: A002  # the record's own word
    time_ms: int,
) -> Scored | Duplicate:
    """Score one event. Raises `Invalid` with the traceback.

    A feature that fails leaves everything as it was. A model that fails leaves no pending entry, but the event stays in
    its profile: it did happen, and undoing it would take a copy of the profile before every event.
    """
    # 1. an event is counted once
    if pending.seen(id):
        return Duplicate(id)
    # 2. features; the profile now knows the event
    feature_set = pipeline.feature_set
    try:
        vector, late = feature_set.compute(obj, key, time_ms, profiles)
    except FeatureError as exc:
        raise Invalid(reason="feature_error", message=traceback.format_exc()) from exc
    # 3. predict
    try:
        value = learner.predict(vector)
    except ModelError as exc:
        raise Invalid(reason="model_error", message=exc.message) from exc
    # 4. wait for the label
    prediction = Prediction(id, key, time_ms, value, learner.version, vector, feature_set.schema)
    return Scored(prediction, pending.open(prediction), late)
