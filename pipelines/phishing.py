"""Is this web site a phishing site? The 1,250 sites that come with River; small, and its results are published."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from river import datasets, linear_model, optim, preprocessing

from features import field
from pipelines.definition import Event, Label, Pipeline, on_loss, on_prediction
from pipelines.elec2 import ABOVE_HALF

LIST = "phishing"
START = datetime(2016, 1, 1, tzinfo=UTC)  # the data set has no times; one site a minute
INPUTS = (
    *("empty_server_form_handler", "popup_window", "https", "request_from_other_domain", "anchor_from_other_domain"),
    *("is_popular", "long_url", "age_of_domain", "ip_in_url"),
)


class Site(Event, topic="phishing-sites", key="list", id="row", time="seen_at"):
    """What a crawler finds on a site, from 0 to 1."""

    row: int
    list: str
    seen_at: datetime
    empty_server_form_handler: float
    popup_window: float
    https: float
    request_from_other_domain: float
    anchor_from_other_domain: float
    is_popular: float
    long_url: float
    age_of_domain: float
    ip_in_url: float


class Verdict(Label, topic="phishing-verdicts", key="list", id="row", time="seen_at"):
    """What somebody found who looked."""

    row: int
    list: str
    seen_at: datetime
    phishing: bool

    @property
    def outcome(self) -> bool:
        """Whether it is phishing."""
        return self.phishing


def history() -> Iterator[Site | Verdict]:
    """Every site, and its verdict directly after it."""
    for number, (x, y) in enumerate(datasets.Phishing()):
        seen_at = START + number * timedelta(minutes=1)
        inputs = {name: float(x[name]) for name in INPUTS}
        yield Site(row=number, list=LIST, seen_at=seen_at, **inputs)
        yield Verdict(row=number, list=LIST, seen_at=seen_at, phishing=y)


def logistic() -> Any:
    """The logistic regression of River's benchmark."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005))


def alma() -> Any:
    """The approximate large margin algorithm of River's benchmark."""
    return preprocessing.StandardScaler() | linear_model.ALMAClassifier()  # type: ignore[no-untyped-call]


def _pipeline(name: str, model: Any, description: str) -> Pipeline:
    return Pipeline(
        name=name,
        description=description,
        event=Site,
        label=Verdict,
        horizon=timedelta(days=1),
        features=[field(name) for name in INPUTS],
        model=model,
        drift=[on_loss(), on_prediction()],
        threshold=ABOVE_HALF,
        window=200,
        baseline_examples=250,
        source=history,
    )


phishing = _pipeline("phishing", logistic, "Is this web site a phishing site? Logistic regression.")
phishing_alma = _pipeline("phishing_alma", alma, "Is this web site a phishing site? ALMA.")
