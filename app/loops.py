"""The hot loops of this process: compiled where HEADWATER_COMPILED and the machine allow, else in Python."""

from app.settings import Settings
from features import compiled, proof
from features.compiled import Choice
from learning import linear_compiled


def choose(settings: Settings) -> Choice:
    """Choose, once, before the first event; takes a second, and some more where nothing is in the cache yet.

    Raises `CompiledError` where HEADWATER_COMPILED=on cannot be had.
    """
    return compiled.choose(settings.compiled, [linear_compiled.prove, proof.prove], settings.data_dir / "compiled")


def said(choice: Choice) -> str:
    """The choice in a line, for people."""
    return f"hot loops: {'compiled by' if choice.compiled else 'in Python,'} {choice.reason}"
