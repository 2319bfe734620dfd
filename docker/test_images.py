"""The images as users run them: every command, whole syncs and a kill, under a hardened engine and without any flag.

    make test-images

Uses the engine that answers; where none does and this is Debian as root, one of Debian's packages is started and ended
(``engine.sh``). Where the real base image cannot be pulled, a stand-in takes its place (``stand-in-base.sh``). Where
neither is possible, every test is skipped with the reason. All commands, exit codes, sizes and times are printed, and
kept in ``build/test-images.log``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from local_runner.api import PublicApis, running_apis
from local_runner.lake import RunningLake, running_lake
from local_runner.run import Connection, Connector, Outcome, sync

from integration_tests import audit
from integration_tests.cdk_suite import SUITES, Suite
from integration_tests.cdk_suite import run as run_suite
from integration_tests.harness import House

ROOT = Path(__file__).parents[1]
LOG = ROOT / "build" / "test-images.log"
PAGE = ROOT / "docker" / "README.md"
BASE = "docker.io/airbyte/python-connector-base:4.1.0"
STAND_IN = "local/python-connector-base-stand-in:bookworm"
SOURCE, DESTINATION, RUNNER = "source-rest-api", "destination-s3-datalake", "local-runner"
CANNOT = 75
GIB = 1 << 30
HARDENED = ("--read-only", "--user", "1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--memory", "1g")  # fmt: skip
_numbers = itertools.count(1)


def say(text: str) -> None:
    """Into the log, and onto the terminal."""
    with LOG.open("a") as log:
        print(text, file=log)
    print(text, flush=True)


@dataclass(frozen=True)
class Engine:
    """A container engine that the environment leads to."""

    network: str
    """``host`` where there is no NAT; the servers of these tests are on the loopback address anyhow."""

    def run(
        self, *command: str, stdin: bytes = b"", check: bool = True, timeout: float = 900
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command with this engine; log its exit code and time."""
        begun = time.monotonic()
        done = subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT, check=False, timeout=timeout)
        say(f"[exit {done.returncode}, {time.monotonic() - begun:5.1f} s] {' '.join(command)[:400]}")
        if check and done.returncode:
            raise AssertionError((done.stdout[-3000:] + done.stderr[-3000:]).decode(errors="replace"))
        return done


@dataclass(frozen=True)
class Images:
    """Both images of this checkout, and what containers of them are started with."""

    engine: Engine
    folder: Path
    """Configurations; the same path inside of containers."""
    flags: tuple[str, ...] = ()
    spool: tuple[str, ...] = ()

    def command(self, connector: str, *more: str) -> tuple[str, ...]:
        """``docker run`` of a connector, up to where its arguments begin."""
        spool = self.spool if connector == DESTINATION else ()
        mount = ("--volume", f"{self.folder}:{self.folder}:ro")
        return ("docker", "run", "--rm", "-i", "--network", "host", *mount, *self.flags, *spool, *more, tag(connector))

    def messages(self, connector: str, *arguments: str, stdin: bytes = b"") -> list[dict[str, Any]]:
        done = self.engine.run(*self.command(connector), *arguments, stdin=stdin)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def save(self, name: str, document: object) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))
        return str(path)


def tag(connector: str) -> str:
    return f"local/{connector}:0.1.0"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text("")
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
    ):
        found = Engine(os.environ.get("CONTAINER_NETWORK", "bridge"))
        describe(found, "was running")
        yield found
        return
    up = subprocess.run([ROOT / "docker" / "engine.sh", "up"], capture_output=True, text=True, check=False)
    if up.returncode:
        reason = (up.stderr.strip().splitlines() or ["docker/engine.sh failed"])[-1]
        say(f"SKIPPED: {reason}")
        if up.returncode != CANNOT:
            pytest.fail(reason)
        pytest.skip(reason)
    settings = dict(line.split("=", 1) for line in up.stdout.splitlines())
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        found = Engine(settings["CONTAINER_NETWORK"])
        describe(found, "started here")
        yield found
        found.run(str(ROOT / "docker" / "engine.sh"), "down")


def describe(engine: Engine, how: str) -> None:
    form = "{{.ServerVersion}}, storage {{.Driver}}, cgroup v{{.CgroupVersion}}, {{.OperatingSystem}}"
    said = engine.run("docker", "info", "--format", form).stdout.decode().strip()
    say(f"engine: {said}; {how}; network {engine.network}")


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    """The image that the connectors are built on."""
    wanted = os.environ.get("BASE_IMAGE", BASE)
    if engine.run("docker", "image", "inspect", wanted, check=False).returncode == 0:
        return wanted
    if engine.run("docker", "pull", "--quiet", wanted, check=False, timeout=300).returncode == 0:
        return wanted
    say(f"{wanted} cannot be pulled: a stand-in takes its place")
    if engine.run("docker", "image", "inspect", STAND_IN, check=False).returncode:
        if os.getuid() or not shutil.which("debootstrap"):
            pytest.skip(f"{wanted} cannot be pulled, and a stand-in needs root and debootstrap")
        engine.run(str(ROOT / "docker" / "stand-in-base.sh"), STAND_IN)
    return STAND_IN


@pytest.fixture(scope="session")
def images(engine: Engine, base: str) -> Iterator[Images]:
    """Built from this checkout, all three."""
    arguments = "BUILD_ARGS=--network host" if engine.network == "host" else "BUILD_ARGS="
    engine.run(
        "make", "images", f"BASE_IMAGE={base}", arguments, f"CONNECTORS={SOURCE} {DESTINATION} {RUNNER}", timeout=1800
    )
    own = size(engine, base)
    for connector in (SOURCE, DESTINATION, RUNNER):
        total = size(engine, tag(connector))
        say(f"{tag(connector)}: {total / 1e6:.0f} MB, of which the base {own / 1e6:.0f} MB")
    folder = Path(tempfile.mkdtemp(prefix="images-", dir="/var/tmp"))
    folder.chmod(0o755)  # containers read it as another user
    engine.run("docker", "volume", "create", "test-images-spool")
    yield Images(engine, folder)
    engine.run("docker", "volume", "rm", "--force", "test-images-spool")
    shutil.rmtree(folder)


@pytest.fixture(params=["hardened", "as the Airbyte UI starts it"])
def way(request: pytest.FixtureRequest, images: Images) -> Images:
    """With everything taken away that can be, and a volume for the spool; or with no flag, volume or setting at all."""
    if request.param != "hardened":
        return images
    return hardened(images)


def hardened(images: Images) -> Images:
    return replace(images, flags=HARDENED, spool=("--volume", "test-images-spool:/tmp"))


@pytest.fixture(scope="session")
def lake() -> Iterator[RunningLake]:
    with running_lake() as running:
        yield running


@pytest.fixture
def house(lake: RunningLake) -> House:
    number = next(_numbers)
    return House(lake, bucket=f"images-{number}", database=f"images_{number}")


@pytest.fixture
def apis() -> PublicApis:
    made = PublicApis()
    made.now = made.last_update(0.8)
    return made


def size(engine: Engine, image: str) -> int:
    return int(engine.run("docker", "image", "inspect", "--format", "{{.Size}}", image).stdout)


def source_config(url: str, example: str = "usgs") -> dict[str, Any]:
    return {**json.loads((ROOT / SOURCE / "examples" / f"{example}.json").read_bytes()), "base_url": url}


def test_the_limit_of_memory_holds_inside_and_the_user_can_do_little(images: Images):
    look = ("cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes; id -u; "
            "grep CapEff /proc/self/status; touch /x 2>&1 || true")  # fmt: skip
    for connector in (SOURCE, DESTINATION):
        command = hardened(images).command(connector, "--entrypoint", "sh")
        limit, user, capabilities, touched = images.engine.run(*command, "-c", look).stdout.decode().splitlines()
        say(f"{connector}: memory.max {limit}, uid {user}, {capabilities.split()[1]} as capabilities")
        assert (int(limit), user, int(capabilities.split()[1], 16)) == (GIB, "1000", 0)
        assert "Read-only file system" in touched


@pytest.mark.parametrize("connector", [SOURCE, DESTINATION])
def test_an_image_says_what_it_is_and_holds_nothing_that_only_a_build_needs(images: Images, connector: str):
    (found,) = json.loads(images.engine.run("docker", "image", "inspect", tag(connector)).stdout)
    config = found["Config"]
    assert config["User"] == "airbyte"
    assert config["Entrypoint"] == ["/usr/local/bin/connector"]
    assert "AIRBYTE_ENTRYPOINT=/usr/local/bin/connector" in config["Env"]
    labels = {name: config["Labels"][name] for name in ("io.airbyte.name", "io.airbyte.version")}
    assert labels == {"io.airbyte.name": f"local/{connector}", "io.airbyte.version": "0.1.0"}
    inside = images.command(connector, "--entrypoint", "sh")
    look = ("cd /opt/connector; find / -xdev \\( -name 'uv' -o -name 'gcc' -o -name 'poetry' \\) -type f 2>/dev/null; "
            "find . -name pip -o -name tests -type d -path '*site-packages/*/tests'; ls -A /root/.cache 2>/dev/null; "
            "find lib -name '*.py' | while read -r file; do folder=${file%/*}; name=${file##*/}; "
            "ls $folder/__pycache__/${name%.py}.*.pyc >/dev/null 2>&1 || echo $file; done")  # fmt: skip
    assert images.engine.run(*inside, "-c", look).stdout.decode().split() == []
    bill = json.loads(images.engine.run(*inside, "-c", "cat /opt/connector/sbom.cdx.json").stdout)
    names = {component["name"].lower() for component in bill["components"]}
    assert {audit.normal(name) for name in names} == set(audit.names(audit.locked(connector)))
    assert ("airbyte-cdk" in {name.replace("_", "-") for name in names}) == (connector == SOURCE)
    (ROOT / "build" / f"{connector}.sbom.cdx.json").write_text(json.dumps(bill, indent=1))


def test_the_page_about_images_says_what_each_megabyte_is(images: Images):
    """The table of ``docker/README.md``, made anew: a part of 5 MB or more has its row, sizes are off by little."""
    found = [parts(images, connector) for connector in (SOURCE, DESTINATION)]
    large = sorted({name for sizes in found for name, size in sizes.items() if size >= 5}, key=lambda name: -sum(
        sizes.get(name, 0) for sizes in found))  # fmt: skip
    rows = {name: [round(sizes.get(name, 0)) for sizes in found] for name in large}
    rows["all others"] = [round(sum(size for name, size in sizes.items() if name not in large)) for sizes in found]
    rows["together"] = [round(sum(sizes.values())) for sizes in found]
    for name, sizes in rows.items():
        say(f"| {name} | {sizes[0]} | {sizes[1]} |")
    said = {
        name: [int(first), int(second)]
        for name, first, second in re.findall(
            r"^\| ([^|]+) \| (\d+) \| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE
        )
    }
    assert set(said) == set(rows)
    off = {name: (said[name], sizes) for name, sizes in rows.items()
           if any(abs(a - b) > max(2, b / 10) for a, b in zip(said[name], sizes, strict=True))}  # fmt: skip
    assert off == {}


def parts(images: Images, connector: str) -> dict[str, float]:
    """MB of each package of an image, with its libraries."""
    look = "cd /opt/connector/lib/python3*/site-packages && du -sk -- *"
    sizes: dict[str, float] = {}
    for line in images.engine.run(*images.command(connector, "--entrypoint", "sh"), "-c", look).stdout.splitlines():
        kilobytes, name = line.decode().split("\t")
        part = re.split(r"[.-]", name.lstrip("_"))[0]  # numpy.libs, numpy-2.4.6.dist-info, _duckdb.cpython-311.so
        sizes[part] = sizes.get(part, 0) + int(kilobytes) / 1024
    return sizes


def test_spec_check_discover_read_and_write(way: Images, house: House, apis: PublicApis):
    with running_apis(apis) as url:
        source = way.save("source.json", source_config(url, "countries"))
        destination = way.save("destination.json", house.config())
        for connector, config in ((SOURCE, source), (DESTINATION, destination)):
            (spec,) = way.messages(connector, "spec")
            assert spec["type"] == "SPEC"
            statuses = [m for m in way.messages(connector, "check", "--config", config) if m["type"] != "LOG"]
            assert [m["connectionStatus"]["status"] for m in statuses] == ["SUCCEEDED"]
        found = [m["catalog"] for m in way.messages(SOURCE, "discover", "--config", source) if m["type"] == "CATALOG"]
        streams = [
            {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}
            for stream in found[0]["streams"]
        ]
        catalog = way.save("catalog.json", {"streams": streams})
        read = way.engine.run(*way.command(SOURCE), "read", "--config", source, "--catalog", catalog)
        states = [line for line in read.stdout.splitlines() if b'"STATE"' in line[:40]]
        assert states
        way.engine.run(
            *way.command(DESTINATION), "write", "--config", destination, "--catalog", catalog, stdin=read.stdout
        )
    assert len(house.rows("countries")) == 250


def test_a_whole_incremental_sync(way: Images, house: House, apis: PublicApis):
    with running_apis(apis) as url:
        connection = joined(way, house, url)
        first = logged("first sync", lambda: sync(connection))
        apis.now = apis.last_update(1.0)
        second = logged("second sync", lambda: sync(connection))
        third = logged("third sync", lambda: sync(connection))
    assert [outcome.records.get("earthquakes", 0) for outcome in (first, second, third)] == [1366, 341, 0]
    ids = [row["id"] for row in house.rows("earthquakes")]
    assert (len(ids), len(set(ids))) == (1707, 1707)


def test_a_container_that_is_killed_in_the_middle_loses_nothing_and_doubles_nothing(
    way: Images, house: House, apis: PublicApis
):
    with running_apis(apis) as url:
        connection = joined(way, house, url, "--name", "test-images-killed")
        ended: list[Outcome] = []
        attempt = threading.Thread(target=lambda: ended.append(sync(connection)))
        attempt.start()
        house.lake.faults(at={"step": "s3:CompleteMultipartUpload", "do": "stop", "pid": pid_of("test-images-killed")})
        until(lambda: house.lake.faults()["at"] is None)
        way.engine.run("docker", "kill", "test-images-killed")
        attempt.join()
        assert ended[0].destination_exit == 137
        say(f"killed at its first CompleteMultipartUpload: exit {ended[0].destination_exit}")
        until(lambda: way.engine.run("docker", "inspect", "test-images-killed", check=False).returncode != 0)
        again = logged("retry", lambda: sync(connection, is_retry=True))
    assert again.is_success
    ids = [row["id"] for row in house.rows("earthquakes")]
    assert (len(ids), len(set(ids))) == (1366, 1366)


def test_without_a_place_for_the_spool_check_says_what_to_mount(images: Images, house: House):
    bare = replace(images, flags=HARDENED)
    found = bare.messages(DESTINATION, "check", "--config", bare.save("destination.json", house.config()))
    (status,) = [message["connectionStatus"] for message in found if message["type"] == "CONNECTION_STATUS"]
    assert status["status"] == "FAILED"
    assert "mount a volume at /tmp" in status["message"]


# The CDK runs `docker run` without a network of its own choice, and the servers of its configurations are here.
DOCKER_ON_HOST = """#!/bin/sh
[ "$1" = run ] && shift && exec {docker} run --network host "$@"
exec {docker} "$@"
"""


@pytest.mark.parametrize("suite", SUITES, ids=[suite.connector for suite in SUITES])
def test_the_cdks_own_image_tests_pass_and_skip_nothing_without_a_reason(images: Images, suite: Suite, tmp_path: Path):
    docker = tmp_path / "docker"
    docker.write_text(DOCKER_ON_HOST.format(docker=shutil.which("docker")))
    docker.chmod(0o755)
    assert run_suite(suite, tag(suite.connector), path=str(tmp_path), say=say) == []


def test_the_pipeline_of_the_compose_file_comes_up_and_goes_down(images: Images):
    engine = images.engine
    compose = ["docker", "compose"]
    if engine.run(*compose, "version", check=False).returncode:
        compose = ["docker-compose"]
    compose += ["--project-name", "test-images", "--file", "docker/compose.yaml"]
    if engine.network == "host":
        compose += ["--file", "docker/compose.host.yaml"]
    try:
        done = engine.run(*compose, "run", "--rm", "table")
        last = json.loads(done.stdout.decode().strip().splitlines()[-1])
        say(f"tables of the pipeline: {last}")
        assert last == {"countries": 250, "earthquakes": 1707}
    finally:
        engine.run(*compose, "down", "--volumes")
    left = engine.run("docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=test-images")
    assert left.stdout == b""


def until(is_so: Callable[[], bool], seconds: float = 120) -> None:
    begun = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun < seconds
        time.sleep(0.1)


def pid_of(container: str) -> int:
    """The process of a container in the machine's own count, once it runs."""
    found: list[int] = []

    def is_running() -> bool:
        command = ("docker", "inspect", "--format", "{{.State.Pid}}", container)
        said = subprocess.run(command, capture_output=True, check=False).stdout.strip()
        found[:] = [int(said)] if said.isdigit() and int(said) else []
        return bool(found)

    until(is_running)
    return found[0]


def joined(images: Images, house: House, url: str, *more: str) -> Connection:
    """The event service into the lake, both connectors as containers."""
    config = images.save("usgs.json", source_config(url))
    found = [m for m in images.messages(SOURCE, "discover", "--config", config) if m["type"] == "CATALOG"]
    entry = {
        "stream": found[0]["catalog"]["streams"][0],
        "sync_mode": "incremental",
        "destination_sync_mode": "append",
    }
    state = images.folder / f"state-{house.bucket}" / "state.json"
    state.parent.mkdir()
    return Connection(
        source=Connector(images.command(SOURCE), Path(config)),
        destination=Connector(
            images.command(DESTINATION, *more), Path(images.save("destination.json", house.config()))
        ),
        catalog=Path(images.save("catalog.json", {"streams": [entry]})),
        state=state,
    )


def logged(what: str, run: Callable[[], Outcome]) -> Outcome:
    begun = time.monotonic()
    outcome = run()
    say(f"[exit {outcome.source_exit} and {outcome.destination_exit}, {time.monotonic() - begun:5.1f} s] {what}: "
        f"{outcome.records}, {outcome.states} states")  # fmt: skip
    assert outcome.is_success, outcome.errors
    return outcome
