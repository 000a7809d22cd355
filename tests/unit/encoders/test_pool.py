"""Decoding processes: order, rejections, crashes, faults of the set-up, and life without a main guard."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from isthmus.encoders.pipeline.pool import CRASHED, decoded_batches
from isthmus.errors import DependencyError, EncoderError
from isthmus.items import Item, Rejected


@dataclass(frozen=True)
class Echo:
    """Gives back the id, unless the text asks for something worse."""

    marks: str = ""

    def __call__(self, item: Item) -> object:
        if item.text == "reject":
            raise Rejected("asked to")
        if item.text == "raise":
            raise ValueError("a library\nfell over")
        if item.text == "memory":
            raise MemoryError
        if item.text == "missing":
            raise DependencyError("run this command")
        if item.text == "unpicklable":
            return lambda: None
        if item.text == "crash":
            os._exit(11)
        if item.text == "crash once":
            mark = Path(self.marks) / item.id
            if not mark.exists():
                mark.touch()
                os._exit(11)
        if item.text == "threads":
            return os.environ.get("OMP_NUM_THREADS"), "torch" in sys.modules
        return item.id


def items(*texts: str) -> list[Item]:
    return [Item(str(number), text=text) for number, text in enumerate(texts)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_outcomes_come_in_order(workers: int):
    batches = [items(*[""] * size) for size in (1, 7, 0, 4, 2, 5)]
    outcomes = list(decoded_batches(batches, Echo(), workers))
    assert outcomes == [[("ok", item.id) for item in batch] for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_faults_of_items_are_rejections(workers: int):
    (outcome,) = decoded_batches([items("", "reject", "raise", "memory", "")], Echo(), workers)
    assert outcome == [
        ("ok", "0"),
        ("rejected", "asked to"),
        ("rejected", "cannot be decoded (ValueError: a library fell over)"),
        ("rejected", "too large for memory"),
        ("ok", "4"),
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_faults_of_the_set_up_end_the_run(workers: int):
    with pytest.raises(DependencyError, match="run this command"):
        list(decoded_batches([items("", "missing")], Echo(), workers))


def test_a_file_that_kills_its_process_is_rejected_alone():
    batches = [items("", "crash", ""), items("crash", "crash"), items("", "")]
    outcomes = list(decoded_batches(batches, Echo(), 2))
    crash = ("rejected", CRASHED)
    assert outcomes == [[("ok", "0"), crash, ("ok", "2")], [crash, crash], [("ok", "0"), ("ok", "1")]]


def test_a_process_that_died_once_is_given_a_second_chance(tmp_path: Path):
    (outcome,) = decoded_batches([items("", "crash once", "")], Echo(str(tmp_path)), 1)
    assert outcome == [("ok", "0"), ("ok", "1"), ("ok", "2")]


def test_workers_have_one_thread_each_and_no_torch():
    before = dict(os.environ)
    (outcome,) = decoded_batches([items("threads", "threads")], Echo(), 2)
    assert outcome == [("ok", ("1", False))] * 2
    assert dict(os.environ) == before


def test_what_cannot_be_sent():
    with pytest.raises(EncoderError, match=r"decoder cannot be sent to worker processes .*workers=0"):
        list(decoded_batches([items("")], lambda item: item.id, 1))
    with pytest.raises(EncoderError, match=r"cannot be sent between processes .*workers=0"):
        list(decoded_batches([items("unpicklable")], Echo(), 1))


def run_script(code: str, tmp_path: Path, *, stdin: bool) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), *sys.path]))}
    command = [sys.executable, "-" if stdin else str(script)]
    with script.open() as stream:
        source = stream if stdin else subprocess.DEVNULL
        return subprocess.run(command, stdin=source, capture_output=True, text=True, env=env, timeout=120)


@pytest.mark.parametrize("stdin", [False, True])
def test_scripts_need_no_main_guard(tmp_path: Path, stdin: bool):
    code = """
        from isthmus.encoders.pipeline.pool import decoded_batches
        from isthmus.items import Item
        from test_pool import Echo
        print(list(decoded_batches([[Item("a"), Item("b")]], Echo(), 2)))
    """
    done = run_script(code, tmp_path, stdin=stdin)
    assert done.stdout.strip() == "[[('ok', 'a'), ('ok', 'b')]]", done.stderr


def test_a_decoder_of_the_script_itself_needs_it_and_the_message_says_so(tmp_path: Path):
    code = """
        from isthmus.encoders.pipeline.pool import decoded_batches
        from isthmus.errors import EncoderError
        from isthmus.items import Item
        class Mine:
            def __call__(self, item):
                return item.id
        try:
            print(list(decoded_batches([[Item("a")]], Mine(), 1)))
        except EncoderError as error:
            print("EncoderError", error)
    """
    done = run_script(code, tmp_path, stdin=False)
    assert "EncoderError a decoding process ended as it started" in done.stdout, done.stderr
    assert 'if __name__ == "__main__":' in done.stdout
