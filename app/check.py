"""What is wrong with a pipeline's topics and its worker's rights, and how to mend it: `headwater topics check`."""

from collections.abc import Iterator
from typing import Any

import msgspec

from pipelines.definition import Pipeline
from streaming import permissions, topics
from streaming.config import EngineConfig
from streaming.permissions import Survey


class Checked(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        partitions: of the events topic, where it is to be seen.
        problems: what is wrong, each in a line.
        survey: topics and rights as the broker says.
        commands: what an operator runs to make what is missing.
    """

    partitions: int | None
    problems: list[str]
    survey: Survey
    commands: list[str]


async def check(pipeline: Pipeline, config: EngineConfig, principal: str | None) -> Checked:
    """Ask the broker. Raises StartupError where it does not answer."""
    specs = topics.topics_of(pipeline, config.app_id, config.partitions)
    async with topics.admin_client(config) as admin:
        counts = await topics.partition_counts(admin, [spec.name for spec in specs])
        survey = await permissions.survey(admin, specs, config)
    found = topics.problems(specs, counts, survey.unseen) + survey.problems()
    commands = permissions.commands(survey, config, principal or config.security.principal) if found else []
    return Checked(counts.get(pipeline.events.topic), found, survey, commands)


def as_dict(checked: Checked) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "ok": not checked.problems,
        "partitions": checked.partitions,
        "problems": checked.problems,
        "missing_topics": [
            {"name": spec.name, "partitions": spec.partitions, "config": dict(spec.config)}
            for spec in checked.survey.topics
        ],
        "acls": [{**msgspec.structs.asdict(acl), "state": state} for acl, state in checked.survey.acls.items()],
        "commands": checked.commands,
    }


def words(checked: Checked) -> Iterator[str]:
    """What people are told: what is wrong, then commands to copy."""
    yield from (f"Error: {problem}" for problem in checked.problems)
    if checked.commands:
        yield "\nTo be run by an operator, with Kafka's own tools:\n"
        yield from checked.commands
        if any(permissions.NOBODY in line for line in checked.commands):
            yield f"\n{permissions.NOBODY} is the name that the broker gives to this client's certificate: --principal"
