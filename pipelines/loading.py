"""Finds a pipeline by the name that settings give: a built-in one, or `package.module:name` of the user's own."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from pipelines.definition import DefinitionError, Pipeline
from pipelines.errors import nearest

BUILT_IN = {
    "flights": "pipelines.flights:flights",
    "card_fraud": "pipelines.card_fraud:card_fraud",
    "elec2": "pipelines.elec2:elec2",
    "elec2_alma": "pipelines.elec2:elec2_alma",
    "elec2_last_label": "pipelines.elec2:elec2_last_label",
    "phishing": "pipelines.phishing:phishing",
    "phishing_alma": "pipelines.phishing:phishing_alma",
    "fraud_handbook": "pipelines.fraud_handbook:fraud_handbook",
}


def load_pipeline(name: str) -> Pipeline:
    """The pipeline. Raises DefinitionError where there is none of that name; errors inside its module pass through."""
    target = BUILT_IN.get(name, name)
    module_name, colon, attribute = target.partition(":")
    if not colon:
        message = f"unknown pipeline {name!r}; {nearest(name, BUILT_IN)} (one of your own is package.module:name)"
        raise DefinitionError(message)
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        message = f"got pipeline {name!r}, expected package.module:name, or one of {', '.join(BUILT_IN)}"
        raise DefinitionError(message)
    module = _module(module_name)
    if not hasattr(module, attribute):
        known = [n for n, value in vars(module).items() if isinstance(value, Pipeline)]
        hint = nearest(attribute, known) if known else "it has no pipeline at all; build one there: x = Pipeline(...)"
        message = f"pipeline {name!r}: module {module_name} has no {attribute!r}; {hint}"
        raise DefinitionError(message)
    found = getattr(module, attribute)
    if not isinstance(found, Pipeline):
        message = (
            f"pipeline {name!r}: got a {type(found).__name__}, expected a Pipeline; name the variable that holds it"
        )
        raise DefinitionError(message)
    return found


def _module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)  # a user's module lies where the command is run, but never hides an installed one
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses one of its own
        message = f"cannot find module {error.name!r} of pipeline module {name!r}; run in its folder or install it"
        raise DefinitionError(message) from error
