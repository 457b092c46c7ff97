"""Learning from a share of the negatives: which of them are kept, and what makes probabilities of the model's answers.

The label join asks which are kept, and so does the learner, which also corrects what the model says. Both are pure: the
same id is kept by every worker, in a replay, a backtest and a rollback.
"""

from collections.abc import Sequence
from hashlib import blake2b

from learning.records import Example

_ALL = 2.0**64
_PURPOSE = b"negatives"  # so that ids which somebody else has chosen by a hash of theirs are a fair sample here


def is_kept(name: str, share: float) -> bool:
    """Whether a negative of this id is among the share of them that is learned.

    The first eight bytes of BLAKE2b, told the purpose, as a number from 0 to 1. So who is kept at a small share is kept
    at every larger one.

    >>> [name for name in ("e", "f", "g", "h", "i") if is_kept(name, 0.5)]
    ['e', 'h', 'i']
    """
    if share >= 1.0:
        return True
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, person=_PURPOSE).digest()
    return int.from_bytes(digest, "big") < share * _ALL


def is_learned(example: Example, share: float) -> bool:
    """Whether a model of this share learns the example: every one that is no negative, and of negatives those it keeps.

    Its id is asked as well as the record. So a log with more of them than are wanted gives the model of the share, too.
    """
    return example.kept and (example.outcome is not False or is_kept(example.id, share))


def learned_of(examples: Sequence[Example], share: float) -> list[Example]:
    """Those of them that a model of this share learns."""
    if share >= 1.0:
        return [example for example in examples if example.kept]
    return [example for example in examples if is_learned(example, share)]


def corrected(probability: float, share: float) -> float:
    """The probability of True in the whole stream, where a model has learned this share of the negatives.

    The model's odds are too high by one over the share, whatever the features, so the logarithm of the share is added
    to the log-odds: p / (p + (1 - p) / share), of He et al. (2014), "Practical Lessons from Predicting Clicks on Ads at
    Facebook", section 6.3. It is written so that each operation is monotone, rounding included: scores keep their
    order.

    What is no probability strictly between 0 and 1 is left as it is: certainty is not a matter of odds.

    >>> corrected(0.5, 0.1), corrected(0.0, 0.1), corrected(1.0, 0.1)
    (0.09090909090909091, 0.0, 1.0)
    >>> corrected(0.3, 1.0)
    0.3
    """
    if share >= 1.0 or not 0.0 < probability < 1.0:
        return probability
    scaled = probability * share
    return 1.0 / (1.0 + (1.0 - probability) / scaled) if scaled else 0.0
