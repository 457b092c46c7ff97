"""The error for mistakes in a pipeline's definition, and the words its messages share."""

import difflib
from collections.abc import Iterable


class DefinitionError(Exception):
    """A pipeline is defined wrongly; the message names the place, what was got, what was expected and the remedy."""


def nearest(got: str, known: Iterable[str]) -> str:
    """The known name that `got` may have been meant to be, as the end of a sentence; else all of them.

    >>> nearest("orgin", ["origin", "carrier"])
    "did you mean 'origin'?"
    >>> nearest("x", ["origin", "carrier"])
    'known are carrier, origin'
    """
    names = sorted(known)
    near = difflib.get_close_matches(got, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
