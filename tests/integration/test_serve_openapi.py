"""Thousands of requests drawn from the service's own description, right and wrong ones, over real connections.

Every answer must be one that /openapi.json names, with the body that it says; the service stays up, its memory flat and
the disk as it was.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service is an extra: pip install 'isthmus[serve]'")
pytest.importorskip("schemathesis", reason="schemathesis draws the requests: pip install 'isthmus[dev]'")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode, checks

from small_world import GALLERIES, make_small_world

pytestmark = pytest.mark.slow
EXAMPLES = 200
"""Requests drawn for each operation of the interface that takes any parameters."""
LEAST = 2_000
"""Requests in all."""


class Served:
    """A service in a process of its own, in an empty folder, and what it has answered.

    Attributes:
        address: Where it listens.
        folder: Its working and temporary folder.
        answers: By operation and status, how many.
        memory: Resident memory after each round of requests, in MB.
    """

    def __init__(self, world: Path, folder: Path) -> None:
        self.folder, self.answers = folder, Counter[tuple[str, int]]()
        self.memory: list[float] = []
        command = [
            sys.executable,
            "-m",
            "isthmus",
            "serve",
            str(world / "unified.bridge"),
            "--port",
            "0",
            "-q",
            "--json",
        ]
        command += [part for each in GALLERIES for part in ("--gallery", str(world / "spaces" / each))]
        environment = {**os.environ, "TMPDIR": str(folder)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
        assert self.process.stdout is not None
        self.address = json.loads(self.process.stdout.readline())["address"].rstrip("/")

    def resident(self) -> float:
        """Resident memory, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def hits(self) -> int:
        """How many hits a good search has."""
        body = json.dumps({"queries": [{"text": "seven"}], "k": 3}).encode()
        request = urllib.request.Request(self.address + "/search", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return sum(len(each["hits"]) for each in json.loads(answer.read())["results"])


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    world = make_small_world(tmp_path_factory.mktemp("world"))
    before = listing(world)
    service = Served(world, tmp_path_factory.mktemp("empty"))
    try:
        yield service
    finally:
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(30) in (0, 130)
        assert listing(world) == before


@pytest.fixture(scope="module")
def description(served: Served) -> Any:
    return schemathesis.openapi.from_url(served.address + "/openapi.json")


CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
DRAWING = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def aim(case: Any) -> None:
    """Give a request a gallery and an item that are there, so that what else is drawn reaches further in."""
    gallery = GALLERIES[0].replace(".space", "")
    if isinstance(case.body, dict):
        own = {"queries": [{"text": "seven"}], "gallery": gallery, "galleries": [gallery], "texts": ["seven"]}
        case.body |= {name: value for name, value in own.items() if name in case.body}
    if isinstance(case.query, dict) and "gallery" in case.query:
        case.query["gallery"] = gallery


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_one_that_the_description_names(served: Served, description: Any, mode: GenerationMode):
    for found in description.get_all_operations():
        operation = found.ok()
        try:
            drawn = operation.as_strategy(generation_mode=mode)

            @DRAWING
            @given(case=drawn)
            def ask(case: Any) -> None:
                if sum(served.answers.values()) % 2:
                    aim(case)
                answer = case.call(base_url=served.address, timeout=60)
                served.answers[case.operation.label, answer.status_code] += 1
                case.validate_response(answer, checks=CHECKS)

            ask()
        except Unsatisfiable:  # an operation without parameters cannot be asked wrongly
            assert mode == GenerationMode.NEGATIVE
    served.memory.append(served.resident())


def test_it_stood_all_of_it(served: Served):
    """The same process answers, its memory is flat, and nothing was written."""
    assert served.process.poll() is None
    assert served.answers, "run the whole module: the requests are those of the test above"
    assert sum(served.answers.values()) >= LEAST
    assert {status for _, status in served.answers} >= {200, 400, 403, 404, 422}
    assert {("POST /search", 200), ("GET /items", 200), ("POST /embed", 200)} <= set(served.answers)
    assert served.hits() == 9
    assert list(served.folder.iterdir()) == []
    first, last = served.memory
    assert last < 1.05 * first, served.memory
