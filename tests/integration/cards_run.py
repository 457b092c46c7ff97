"""The card_fraud pipeline under the name of one test run. Loaded by workers."""

import os

from features import count, field, mean, since_last
from pipelines.card_fraud import Chargeback, Purchase, card_fraud, history
from pipelines.definition import Pipeline


def named(run: str) -> Pipeline:
    """The card_fraud pipeline with topics that begin with the run's name, and fewer features."""

    class Bought(Purchase, topic=f"{run}.purchases"):
        """A purchase of this run."""

    class Reported(Chargeback, topic=f"{run}.chargebacks"):
        """A chargeback of this run."""

    return Pipeline(
        name=run,
        event=Bought,
        label=Reported,
        horizon=card_fraud.horizon,
        expired="negative",
        features=[
            field("amount"),
            count("1d"),
            mean("amount", "7d"),
            count("7d", by="terminal", local=True),
            since_last(),
        ],
        model=card_fraud.model,
        source=history,
    )


pipeline = named(os.environ.get("HEADWATER_TEST_RUN", "run"))
