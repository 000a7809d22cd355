"""Damage to every file that isthmus reads: what comes of it is a value or a fault of isthmus' own, never another.

Each case damages one whole file of one reader (see `readers.py`), reads it as the product does, and puts it back. The
readers run in a process of their own, so that a crash of native code is counted and the run goes on behind it. Every
10,000 cases the memory of the process and the slowest case are noted: both must stay flat.

    python tests/faults/fuzz_readers.py --cases 1000000 --out bench/results/faults.json
    python tests/faults/fuzz_readers.py --cases 1000000 --guided     with atheris, which looks for new ways through
                                                                     the code (pip install atheris)

`--only NAME` takes the readers whose names hold it; a case is named `seed:number` and run again by `--case`. With
`--notes FILE` a run that was stopped, or whose `--cases` are raised, goes on behind the last case of the file.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import faulthandler
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ISTHMUS_KERNELS", "0")
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

if "--guided" in sys.argv and "--start" in sys.argv:  # before anything of isthmus is imported
    import atheris

    with atheris.instrument_imports(include=["isthmus"]):
        import readers  # noqa: F401

from readers import Reader, make_readers

from isthmus.errors import IsthmusError
from isthmus.items import Rejected

NOTE = 10_000
"""Cases between two notes of memory and time."""
COUNT = 100
"""Cases whose outcomes are written at once: at most so many go uncounted with a crash."""
SLOW = 20.0
"""Seconds after which a case counts as one that hangs."""
ENDLESS = 120.0
"""Seconds after which a process that does not hear of it is killed, and its case counts as a crash."""

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "../..", "/etc", "\x1b[31m", "\u00e9", "\udc80", "x" * 5000),
    *([], {}, [[]], [None], {"": None}, {"x": {"y": []}}, ["a", "b"], [1, 2]),
]
TOKENS = (
    *(
        b"\0",
        b"\n",
        b"\r",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b'"',
        b"'",
        b",",
        b"\t",
        b"\\u0000",
        b"\\ud800",
        b"nan",
        b"inf",
    ),
    *(b"-1", b"0", b"1e999", b"99999999999999999999", b"[", b"]", b"{", b"}", b"../", b"\x1b[31m", b"\xe9"),
    *(b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"id", b"=", b"#", b";"),
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a value of json."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from paths(value[key], (*at, key))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from paths(one, (*at, number))


def damaged_json(whole: bytes, draw: random.Random) -> bytes:
    """One to three places of a text of json changed, a key moved or lost."""
    value = json.loads(whole)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = [place for place in paths(value) if place]
        if not places:
            break
        *outer, last = draw.choice(places)
        inner = value
        for key in outer:
            inner = inner[key]
        action = draw.random()
        if action < 0.15:
            del inner[last]
        elif action < 0.25 and isinstance(inner, dict):
            inner[draw.choice(["x", "..", "a/b", "\x1b", "", "__class__", "path"])] = inner.pop(last)
        else:
            inner[last] = copy.deepcopy(draw.choice(VALUES))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def damaged_bytes(whole: bytes, other: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut, doubled, moved, numbers set to their ends, or the head of one file before another's tail."""
    raw = bytearray(whole)
    for _ in range(draw.choice([1, 1, 2, 4])):
        if not raw:
            break
        at = draw.randrange(len(raw))
        match draw.randrange(8):
            case 0:
                for _ in range(draw.randint(1, 8)):
                    raw[draw.randrange(len(raw))] = draw.randrange(256)
            case 1:
                del raw[at:]
            case 2:
                del raw[at : at + draw.randint(1, 40)]
            case 3:
                raw[at:at] = raw[at : at + draw.randint(1, 60)]
            case 4:
                raw[at:at] = draw.choice(TOKENS)
            case 5:
                token = draw.choice(TOKENS)
                raw[at : at + len(token)] = token
            case 6:
                width = draw.choice([2, 4, 8])
                number = int.from_bytes(raw[at : at + width], "little") + draw.choice([-1, 1, 256, 1 << 20])
                raw[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
            case _:
                raw[at:] = other[draw.randrange(len(other) + 1) :]
    return bytes(raw)


def damaged(reader: Reader, draw: random.Random) -> bytes:
    """A whole file of a reader, damaged."""
    whole, other = draw.choice(reader.seeds), draw.choice(reader.seeds)
    if reader.kind == "json" and draw.random() < 0.7:
        with contextlib.suppress(ValueError):  # a file of one object a line
            return damaged_json(whole, draw)
    return damaged_bytes(whole, other, draw)


def read(reader: Reader, content: bytes) -> str:
    """Read a content; the class of what came of it. What is no fault of isthmus' own goes up."""
    reader.path.write_bytes(content)
    try:
        reader.use(reader.path)
        return "read"
    except (IsthmusError, Rejected) as error:
        if len(str(error)) > 400:
            raise AssertionError(f"a message of {len(str(error))} letters") from error
        return type(error).__name__
    finally:
        reader.path.write_bytes(reader.seeds[0])


def memory(what: str = "VmRSS") -> int:
    """Megabytes of this process: now, or "VmHWM", the most so far."""
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) // 1024 for line in stream if line.startswith(what))


class Notes:
    """What came of the cases, written to a file as it happens, so that a crash loses nothing."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path, self.number = path, start
        self._counted = 0
        self.outcomes: Counter[str] = Counter()
        self.slowest, self._slowest_of, self._begin = 0.0, "", time.monotonic()

    def count(self, outcome: str, name: str, seconds: float) -> None:
        """Count a case."""
        self.outcomes[outcome] += 1
        self.number += 1
        if seconds > self.slowest:
            self.slowest, self._slowest_of = seconds, name
        self._counted += 1
        if self._counted == COUNT:
            self.write({"outcomes": dict(self.outcomes)})
            self.outcomes.clear()
            self._counted = 0
        if self.number % NOTE == 0:
            self.flush()

    def flush(self) -> None:
        """Write a line about the cases since the last."""
        line = {
            "cases": self.number,
            "seconds": round(time.monotonic() - self._begin, 1),
            "cpu seconds": round(time.process_time(), 1),
            "memory now, MB": memory(),
            "memory at most, MB": memory("VmHWM"),
            "slowest case, s": round(self.slowest, 2),
            "slowest reader": self._slowest_of,
        }
        self.slowest = 0.0
        self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        """Add a line to the file."""
        with self._path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def strange(self, case: str, name: str, content: bytes) -> None:
        """Note an exception that is no fault of isthmus' own."""
        frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(sys.exc_info()[2])]
        error = sys.exc_info()[1]
        self.write(
            {"strange": f"{type(error).__name__}: {str(error)[:160]}", "case": case, "reader": name, "at": frames[-4:]}
            | {"content": content[:2000].hex()}
        )


class Hang(Exception):
    """A case took longer than `SLOW`."""


def _ring(*_: object) -> None:
    raise Hang("no end")


def quiet() -> None:
    """No warnings, no words of native libraries on standard error, an alarm for cases that hang."""
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import av

        av.logging.set_level(av.logging.PANIC)
    signal.signal(signal.SIGALRM, _ring)


def one_case(readers: list[Reader], weights: list[float], seed: int, number: int, notes: Notes) -> None:
    """Damage and read one file."""
    draw = random.Random(seed * 10**9 + number)
    reader = draw.choices(readers, weights)[0]
    content = damaged(reader, draw)
    begin = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, SLOW)
    try:
        outcome = read(reader, content)
    except BaseException as error:  # native code has classes of its own that are no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        outcome = "unclassified"
        notes.strange(f"{seed}:{number}", reader.name, content)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    notes.count(outcome, reader.name, time.monotonic() - begin)


def chosen(readers: list[Reader], only: str) -> list[Reader]:
    """The readers whose names hold a text."""
    return [reader for reader in readers if only in reader.name]


def plain_run(options: argparse.Namespace, folder: Path, start: int) -> None:
    """Cases from `start` on, in this process."""
    readers = chosen(make_readers(folder), options.only)
    weights, notes = [reader.weight for reader in readers], Notes(options.notes, start)
    mark = os.open(options.mark, os.O_RDWR | os.O_CREAT)
    for number in range(start, options.cases):
        os.pwrite(mark, number.to_bytes(8, "little"), 0)
        one_case(readers, weights, options.seed, number, notes)
    notes.flush()


def guided_run(options: argparse.Namespace, folder: Path, start: int) -> None:
    """Cases that atheris makes, whose first two bytes choose the reader. It ends the process itself."""
    readers = chosen(make_readers(folder), options.only)
    notes = Notes(options.notes, start)
    corpus = options.corpus or folder / "corpus"
    corpus.mkdir(exist_ok=True, parents=True)
    for place, reader in enumerate(readers):
        for number, whole in enumerate(reader.seeds):
            (corpus / f"{place:03d}-{number}").write_bytes(place.to_bytes(2, "little") + whole)
    mark = os.open(options.mark, os.O_RDWR | os.O_CREAT)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        place = int.from_bytes(data[:2], "little") % len(readers)
        reader, content = readers[place], data[2:]
        if draw.random() < 0.05:
            place = draw.choices(range(len(readers)), [one.weight for one in readers])[0]
            return (place.to_bytes(2, "little") + damaged(readers[place], draw))[:most]
        if draw.random() < 0.5:
            content = atheris.Mutate(content, max(most - 2, 1))
        else:
            content = damaged(Reader(reader.name, reader.path, (content or b"x",), reader.use, 1, reader.kind), draw)
        return (place.to_bytes(2, "little") + content)[:most]

    def one(data: bytes) -> None:
        reader = readers[int.from_bytes(data[:2], "little") % len(readers)]
        os.pwrite(mark, notes.number.to_bytes(8, "little"), 0)
        begin = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, SLOW)
        try:
            outcome = read(reader, data[2:])
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            outcome = "unclassified"
            notes.strange(f"guided:{notes.number}", reader.name, data[2:])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        notes.count(outcome, reader.name, time.monotonic() - begin)

    runs = options.cases - start
    arguments = [sys.argv[0], f"-atheris_runs={runs}", f"-runs={runs}", f"-seed={options.seed + 1}", "-max_len=16384"]
    quiet_arguments = ["-rss_limit_mb=0", "-timeout=0", "-verbosity=0", "-print_final_stats=0", str(corpus)]
    atheris.Setup([*arguments, *quiet_arguments], one, custom_mutator=mutate)
    quiet()
    atheris.Fuzz()


def work(options: argparse.Namespace, start: int) -> None:
    """One process: the cases from `start` to the end, or to a crash of native code."""
    faulthandler.enable()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        quiet()
        (guided_run if options.guided else plain_run)(options, Path(folder), start)


def campaign(options: argparse.Namespace) -> dict[str, Any]:
    """All cases, in as many processes as crashes leave; returns the report."""
    lines = known_notes(options.notes)
    begin, crashes = time.monotonic(), list[str]()
    start = sum(sum(line.get("outcomes", {}).values()) for line in lines)
    while start < options.cases and time.monotonic() - begin < options.seconds:
        options.mark.write_bytes(start.to_bytes(8, "little"))
        arguments = [sys.executable, __file__, *options.again, "--start", str(start)]
        process = os.posix_spawn(sys.executable, arguments, os.environ)
        status = _wait(process, begin + options.seconds, options.mark)
        start = int.from_bytes(options.mark.read_bytes(), "little") + 1
        if status != 0 and start < options.cases and time.monotonic() - begin < options.seconds:
            crashes.append(f"case {start - 1}: {'no end' if status == -signal.SIGKILL else f'status {status}'}")
    seconds = round(time.monotonic() - begin)
    with options.notes.open("a") as stream:
        stream.write(json.dumps({"wall seconds": seconds, "crashes": crashes}) + "\n")
    return report(known_notes(options.notes))


def known_notes(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of notes, none where there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _wait(process: int, until: float, mark: Path) -> int:
    """Wait for a process, at most until a time, when it is asked to end; one whose case has no end is killed.

    Native code hears no alarm: it is seen here that the mark of the process stands still.
    """
    case, since = mark.read_bytes(), time.monotonic()
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if mark.read_bytes() != case:
            case, since = mark.read_bytes(), time.monotonic()
        elif time.monotonic() - since > ENDLESS:
            os.kill(process, signal.SIGKILL)
        if time.monotonic() > until:
            os.kill(process, signal.SIGINT)
            _, status = os.waitpid(process, 0)
            return 0
        time.sleep(0.2)


def report(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What was found, as the result file has it."""
    runs = [line for line in lines if "wall seconds" in line]
    notes = [line for line in lines if "cases" in line]
    strange = [line for line in lines if "strange" in line]
    outcomes: Counter[str] = Counter()
    for line in lines:
        outcomes.update(line.get("outcomes", {}))
    kinds: dict[str, int] = Counter()
    seen: dict[tuple[str, ...], str] = {}  # one kind a class and a place, called by the first of it
    for line in strange:
        place = (line["strange"].partition(":")[0], *line["at"][-3:])
        kinds[seen.setdefault(place, f"{line['reader']}: {line['strange']} ({line['case']}) @ {line['at']}")] += 1
    return {
        "cases": sum(outcomes.values()),
        "outcomes": dict(outcomes.most_common()),
        "unclassified": len(strange),
        "kinds of unclassified": kinds,
        "crashes of native code": [crash for line in runs for crash in line["crashes"]],
        "seconds": sum(line["wall seconds"] for line in runs),
        "every 10,000 cases": [{key: line[key] for key in line if key != "seconds"} for line in notes],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time, whatever is left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--case", help="seed:number of one case to run in this process, with its traceback")
    parser.add_argument("--guided", action="store_true", help="guided by coverage; needs atheris")
    parser.add_argument("--corpus", type=Path, help="where atheris keeps what led to new code; default: nowhere")
    parser.add_argument("--notes", type=Path, help="file of one line a 10,000 cases and one a finding")
    parser.add_argument("--out", type=Path, help="result file to add to")
    parser.add_argument("--mark", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        seed, number = map(int, options.case.split(":"))
        with tempfile.TemporaryDirectory() as folder:
            readers = chosen(make_readers(Path(folder)), options.only)
            draw = random.Random(seed * 10**9 + number)
            reader = draw.choices(readers, [one.weight for one in readers])[0]
            print(reader.name, read(reader, damaged(reader, draw)))
        return 0
    if options.start >= 0:
        work(options, options.start)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        options.notes = options.notes or Path(folder) / "notes.jsonl"
        options.mark = options.mark or Path(folder) / "mark"
        options.again = [*sys.argv[1:], "--notes", str(options.notes), "--mark", str(options.mark)]
        result = campaign(options)
    print(json.dumps(result, indent=2))
    if options.out:
        known = json.loads(options.out.read_text()) if options.out.is_file() else {}
        name = "fuzzing of readers, guided" if options.guided else "fuzzing of readers"
        options.out.write_text(json.dumps({**known, name: result}, indent=2) + "\n")
    return 1 if result["unclassified"] or result["crashes of native code"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
