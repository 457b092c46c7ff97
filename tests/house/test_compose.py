"""docker-compose.yml and Dockerfile fit each other and the code; no Docker is needed to see it."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from app.cli import main
from app.settings import PREFIX, known_names, load_settings
from pipelines.loading import BUILT_IN
from streaming.jars import KAFKA
from tests.conftest import IMAGE

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKERS = ("worker", "watcher")
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}


def instructions(word: str) -> list[str]:
    """Arguments of each such instruction of the Dockerfile."""
    return re.findall(rf"^{word} +(.+)$", DOCKERFILE, re.MULTILINE)


def stages() -> dict[str, str]:
    """What each stage of the Dockerfile is built from."""
    return {name: parent for parent, _, name in (line.partition(" AS ") for line in instructions("FROM"))}


def stage_texts() -> list[str]:
    """The Dockerfile, stage by stage, each without its first word."""
    return re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]


def images() -> list[str]:
    """Every image that is run or built from."""
    known = stages()
    return [service["image"] for service in SERVICES.values()] + [p for p in known.values() if p not in known]


def copied() -> list[str]:
    """What the Dockerfile copies from this folder."""
    return [source for line in instructions("COPY") for source in line.split()[:-1]]


def mounts() -> list[str]:
    """Sources of all mounts: names of volumes, or paths."""
    return [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]


def test_services_are_the_expected() -> None:
    """So that no other test here passes by looking at nothing."""
    assert set(SERVICES) == {
        *("kafka", "topics", "web-token", "worker", "watcher", "producer", "prometheus", "grafana")
    }
    assert set(OURS) == {"topics", *WORKERS, "producer"}
    assert [name for name, service in SERVICES.items() if service.get("profiles")] == ["producer"]


@pytest.mark.parametrize("image", images())
def test_image_is_pinned(image: str) -> None:
    """A version down to the patch, so that everybody runs the same."""
    assert re.search(r":v?\d+\.\d+\.\d+(-[\w.-]+)?$", image)


def test_versions_are_those_of_the_code() -> None:
    """The local Kafka, the tests' and this one are the same; our images carry our version."""
    version = KAFKA.rsplit(":", 1)[1]
    assert {SERVICES["kafka"]["image"], IMAGE} == {f"apache/kafka:{version}"}
    assert {service["image"].split(":")[1] for service in OURS.values()} == {PROJECT["version"]}


def test_kafka_of_one_node_can_do_transactions() -> None:
    """Kafka's defaults ask for three copies, which one node never has: the first transaction would wait for ever."""
    environment = SERVICES["kafka"]["environment"]
    for topic in ("OFFSETS_TOPIC", "TRANSACTION_STATE_LOG"):
        assert environment[f"KAFKA_{topic}_REPLICATION_FACTOR"] == "1"
    assert environment["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_listeners_of_kafka_agree() -> None:
    """What is advertised is listened on, has a protocol, and is what the workers and the health check are told."""
    environment = SERVICES["kafka"]["environment"]

    def parts(name: str, separator: str) -> dict[str, str]:
        return dict(entry.split(separator, 1) for entry in environment[name].split(","))

    listens, advertised = parts("KAFKA_LISTENERS", "://"), parts("KAFKA_ADVERTISED_LISTENERS", "://")
    assert listens.keys() == parts("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", ":").keys()
    assert advertised.keys() == listens.keys() - {environment["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    for name, address in advertised.items():
        assert address.endswith(listens[name])
    inside = advertised[environment["KAFKA_INTER_BROKER_LISTENER_NAME"]]
    assert inside in SERVICES["kafka"]["healthcheck"]["test"]
    assert {service["environment"]["HEADWATER_BROKER"] for service in OURS.values()} == {inside}
    assert inside.split(":")[0] in SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_dependencies_of_a_service_exist(name: str) -> None:
    """And what is waited for can come true: health needs a check, completion a service that is not restarted."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert other in SERVICES
        assert how["condition"] in CONDITIONS
        assert not SERVICES[other].get("profiles"), "would not be there without its profile"
        if how["condition"] == "service_healthy":
            assert SERVICES[other]["healthcheck"]["test"][0] == "CMD"
        if how["condition"] == "service_completed_successfully":
            assert SERVICES[other]["restart"] == "no"


def test_order_of_start() -> None:
    """Nothing of ours runs before Kafka answers, and no worker before its topics are there."""
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert waits["topics"]["kafka"]["condition"] == "service_healthy"
    assert {waits[name]["topics"]["condition"] for name in WORKERS} == {"service_completed_successfully"}
    assert waits["producer"]["worker"]["condition"] == "service_healthy"


def test_volumes_are_declared_and_used() -> None:
    """The data of Kafka outlives its container; a mounted file is there."""
    named = {source for source in mounts() if not source.startswith(".")}
    assert named == set(COMPOSE["volumes"])
    for source in mounts():
        assert source in named or (ROOT / source).is_file()
    assert f"kafka-data:{SERVICES['kafka']['environment']['KAFKA_LOG_DIRS']}" in SERVICES["kafka"]["volumes"]


def test_ports_are_open_on_loopback_only() -> None:
    """Neither Kafka nor a worker asks who is there."""
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("file", ["docker-compose.yml", "Dockerfile"])
def test_environment_names_are_settings(file: str) -> None:
    """An unknown one would end the container at its start."""
    names = set(re.findall(rf"\b{PREFIX}[A-Z_]+", (ROOT / file).read_text("utf-8")))
    assert names
    assert names <= set(known_names())


@pytest.mark.parametrize("name", OURS)
def test_environment_values_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With what stands behind `:-` where a variable is not set, and a token where a file of one is named."""
    (tmp_path / "web-token").write_text("0123456789abcdef")
    for setting, value in OURS[name]["environment"].items():
        here = value.replace("/run/headwater", str(tmp_path))
        monkeypatch.setenv(setting, re.sub(r"\$\{\w+:-(.*?)}", r"\1", here))
    settings = load_settings()
    assert settings.broker == OURS[name]["environment"]["HEADWATER_BROKER"]
    assert settings.pipeline in BUILT_IN


@pytest.mark.parametrize("name", OURS)
def test_command_exists(name: str) -> None:
    """The words are commands of `headwater`, the rest options that they take."""
    command: click.Command = main
    words = list(OURS[name]["command"])
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def test_image_starts_what_is_installed() -> None:
    """The entry point is the project's script, and its default command exists."""
    assert instructions("ENTRYPOINT") == ['["headwater"]']
    assert "headwater" in PROJECT["scripts"]
    (command,) = instructions("CMD")
    assert yaml.safe_load(command)[0] in main.commands


def test_build_targets_are_stages() -> None:
    """Whoever builds without a target gets the worker."""
    assert {service["build"]["target"] for service in OURS.values()} <= stages().keys()
    assert list(stages())[-1] == OURS["worker"]["build"]["target"]
    assert {parent for parent in stages().values() if parent not in stages()} == {stages()["base"]}


def test_image_does_not_run_as_root() -> None:
    """Who becomes root to install gives it up again in the same stage."""
    users = {stage.split()[2]: re.findall(r"^USER (.+)$", stage, re.MULTILINE) for stage in stage_texts()}
    assert users["base"]
    for found in filter(None, users.values()):
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found[-1])


def test_image_installs_from_hashed_lock_files() -> None:
    """Besides the project itself, which adds no package."""
    for line in instructions("RUN"):
        for install in re.findall(r"pip install .*", line):
            assert "--require-hashes" in install or install.endswith("--no-deps --no-build-isolation .")


def test_copied_files_exist_and_are_not_ignored() -> None:
    """`.dockerignore` keeps everything out but these."""
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == set(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_all_packages_are_copied() -> None:
    """One that is forgotten would be missed when the container starts."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    assert set(packages) == {source for source in copied() if (ROOT / source).is_dir()}


def test_health_of_a_worker_is_asked_at_a_path_it_serves() -> None:
    """Not merely at any that answers."""
    for name in WORKERS:
        (path,) = re.findall(r"127\.0\.0\.1:\d+(/[\w/]+)", SERVICES[name]["healthcheck"]["test"][-1])
        assert f'web.get("{path}", ' in (ROOT / "app" / "web.py").read_text("utf-8")


def test_workers_fit_each_other() -> None:
    """Whoever is scaled does not watch, and whoever watches does nothing else; one of role `all` would be refused."""
    roles = {name: SERVICES[name]["environment"]["HEADWATER_ROLE"] for name in WORKERS}
    assert roles == {"worker": "serve", "watcher": "watch"}
    rest = [
        {key: value for key, value in SERVICES[name]["environment"].items() if key != "HEADWATER_ROLE"}
        for name in WORKERS
    ]
    assert rest[0] == rest[1]
    assert "ports" not in SERVICES["watcher"], "the page of each worker has what it finds"


def test_prometheus_scrapes_the_workers() -> None:
    """At the port they listen on, which is the one their health is asked at and that is published."""
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == list(WORKERS)
    for worker in (SERVICES[name] for name in WORKERS):
        assert str(found["port"]) == worker["environment"]["HEADWATER_WEB_PORT"]
        assert f"127.0.0.1:{found['port']}/" in worker["healthcheck"]["test"][-1]
        assert worker["environment"]["HEADWATER_WEB_HOST"] == "0.0.0.0"
    assert [port.rsplit(":", 1)[1] for port in SERVICES["worker"]["ports"]] == [str(found["port"])]


def test_workers_that_others_reach_have_a_token_and_prometheus_sends_it(tmp_path: Path) -> None:
    """It is made once, is one that a worker accepts, and is where both look for it."""
    (file,) = {SERVICES[name]["environment"]["HEADWATER_WEB_TOKEN_FILE"] for name in WORKERS}
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert config["scrape_configs"][0]["authorization"] == {"credentials_file": file}
    folder = file.rpartition("/")[0]
    assert f"web-token:{folder}" in SERVICES["web-token"]["volumes"]
    for name in (*WORKERS, "prometheus"):
        assert f"web-token:{folder}:ro" in SERVICES[name]["volumes"]
        assert SERVICES[name]["depends_on"]["web-token"]["condition"] == "service_completed_successfully"
    (script,) = SERVICES["web-token"]["command"]
    made = []
    for _ in range(2):
        subprocess.run(["sh", "-c", script.replace(folder, str(tmp_path))], check=True)
        made.append((tmp_path / "web-token").read_text())
    assert re.fullmatch(r"[0-9a-f]{64}", made[0])
    assert made[0] == made[1]
    assert load_settings(web_token=made[0]).web_token.get_secret_value() == made[0]
