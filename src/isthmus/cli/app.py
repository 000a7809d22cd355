"""The application: its verbs in the order data flows, and where a fault becomes one line and an exit code."""

from __future__ import annotations

import errno
import os
import struct
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperCommand

from isthmus.cli import ablation as ablations
from isthmus.cli import about, bridges, editing, official, report, serving, spaces
from isthmus.cli import benchmarks as suites
from isthmus.cli import evaluation as scores
from isthmus.cli import export as exporting
from isthmus.cli import search as searching
from isthmus.cli import vocabulary as names
from isthmus.cli import worlds as joining
from isthmus.cli.examples import epilog
from isthmus.core.places import home_path
from isthmus.core.runtime import heed_interrupts
from isthmus.core.terminal import printable
from isthmus.core.version import __version__
from isthmus.errors import ConfigError, IsthmusError

DONE, USAGE, INTERRUPTED = 0, 2, 130


def build() -> typer.Typer:
    """Assemble the application, without rich help and pretty exceptions: they start slowly and print many lines."""
    app = typer.Typer(
        name="isthmus",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback(invoke_without_command=True)(_isthmus)
    for name, verb in VERBS.items():
        app.command(name, cls=Verb, epilog=epilog(name))(verb)
    return app


class Verb(TyperCommand):
    """A verb whose help names its arguments as the verb does, without the types of the program's own language."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for each in self.params:
            if each.param_type_name == "argument":
                each.display_type_rich = lambda **_: ""  # type: ignore[attr-defined]


VERBS: dict[str, Callable[..., None]] = {
    "demo": about.demo,
    "join": joining.join,
    "encode": spaces.encode,
    "import": spaces.import_,
    "inspect": spaces.inspect,
    "update": editing.update,
    "remove": editing.remove,
    "rename": editing.rename,
    "merge": editing.merge,
    "connect": bridges.connect,
    "extend": bridges.extend,
    "official": official.official,
    "project": bridges.project,
    "evaluate": scores.evaluate,
    "search": searching.search,
    "serve": serving.serve,
    "export": exporting.export,
    "report": report.report,
    "benchmarks": suites.benchmarks,
    "suite": suites.suite,
    "compare": suites.compare,
    "ablate": ablations.ablate,
    "vocabulary": names.vocabulary,
    "encoders": about.encoders,
    "doctor": about.doctor,
}
"""The verbs by name, in the order data flows."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"isthmus {__version__}")
        raise typer.Exit()


SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def _print_completion(shell: str | None) -> None:
    """Print what a shell needs to complete verbs and options; `eval "$(isthmus --show-completion bash)"` takes it."""
    if shell is None:
        return
    if shell not in SHELLS:
        raise ConfigError(f"--show-completion got {shell!r}, expected {', '.join(SHELLS)}.")
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    print(get_completion_script(prog_name="isthmus", complete_var="_ISTHMUS_COMPLETE", shell=shell))
    raise typer.Exit()


def _isthmus(
    context: typer.Context,
    _verbose: bool = typer.Option(False, "--verbose", "-v", help="With a fault, show where in the code it came up."),
    completion: str = typer.Option(
        None,
        "--show-completion",
        metavar="SHELL",
        help="Print what bash, zsh, fish or powershell completes by.",
        callback=_print_completion,
        is_eager=True,
        show_default=False,
    ),
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Join pretrained embedding spaces through a modality they share, without paired data."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(USAGE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return 0 done, 1 a check said no, 2 wrong usage or bad input, 130 interrupted."""
    line = ""
    given: list[str] = []
    _open_streams()
    try:
        given = [with_home(one) for one in (sys.argv[1:] if arguments is None else arguments)]
        with heed_interrupts():
            if os.environ.get("_ISTHMUS_COMPLETE"):
                from typer.completion import completion_init  # type: ignore[attr-defined]

                completion_init()
            code = build()(args=given, prog_name="isthmus", standalone_mode=False)
    except BaseException as error:
        if os.environ.get("ISTHMUS_DEBUG", "") not in ("", "0") or is_verbose(given):
            traceback.print_exc()
        line, code = describe(error)
    if code == INTERRUPTED:  # newer typer turns the interrupt into this code by itself
        line = "Interrupted: the same command goes on from the last checkpoint or whole shard."
    if line:
        with suppress(OSError, ValueError):  # nobody reads any more
            print(line, file=sys.stderr)
    return int(code or DONE)


def is_verbose(arguments: Sequence[str]) -> bool:
    """Whether -v stands before the verb."""
    for each in arguments:
        if not each.startswith("-"):
            return False
        if each in ("-v", "--verbose"):
            return True
    return False


FREE_TEXT = ("--text", "--name", "--filter")
"""Options whose value is no path, so that `~` stands for itself."""


def with_home(argument: str) -> str:
    """Expand `~` in `--option=~/path`, which shells leave alone; a folder of that name would come of it."""
    option, equals, value = argument.partition("=")
    if not (equals and value.startswith("~") and option.startswith("--")) or option in FREE_TEXT:
        return argument
    return f"{option}={home_path(value)}"


def _open_streams() -> None:
    """Give a process that was started without standard streams some that go nowhere.

    A file that is opened later would take the free number otherwise, and what a library prints would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, it lasts as long as the process


def describe(error: BaseException) -> tuple[str, int]:
    """Turn whatever ended a verb into the one line that a person reads and the exit code that a program reads."""
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return "", INTERRUPTED
    if isinstance(error, (typer.Exit, SystemExit)):
        code = getattr(error, "exit_code", getattr(error, "code", 1))
        return "", code if isinstance(code, int) else 1
    if isinstance(error, IsthmusError):
        return one_line(type(error).__name__, str(error)), error.exit_code
    if hasattr(error, "format_message"):  # the usage faults of typer, whose own classes are not public
        return usage_line(error), USAGE
    if isinstance(error, OSError):
        return one_line(type(error).__name__, os_message(error)), USAGE
    if isinstance(error, MemoryError):
        return one_line("MemoryError", "not enough memory. Give --memory-limit, or a smaller batch."), USAGE
    if words := _known(error):
        return one_line("FormatError", words), USAGE
    fault = f"{type(error).__name__}: {error}"
    return one_line("InternalError", f"{fault}. This is a fault of isthmus; ISTHMUS_DEBUG=1 shows where."), USAGE


def _known(error: BaseException) -> str | None:
    """What to say of a fault of another library that a file or a name of the user's explains; None of any other."""
    text = " ".join(str(error).split())[:160]
    if isinstance(error, UnicodeError):
        return f"a file or a name is not UTF-8 ({text}). Convert it, such as by iconv -f latin1 -t utf-8, or rename it."
    if isinstance(error, RuntimeError) and "Symlink loop" in text:
        return f"a link leads back to itself ({text}). Give the path of a real file or folder."
    if isinstance(error, ValueError) and "null byte" in text:
        return "a path holds a zero byte, so it is none. Give the path of a file or folder."
    if isinstance(error, (EOFError, zipfile.BadZipFile, struct.error, zlib.error)) or (
        type(error).__module__.partition(".")[0] in ("pyarrow", "safetensors_rust", "safetensors")
    ):
        return f"a file is cut short, damaged or of another kind ({text}). Copy it again, or make it again."
    return None


def one_line(kind: str, message: str) -> str:
    """Write `kind: message` on one line, whatever line breaks the message holds."""
    return printable(f"{kind}: {' '.join(message.split())}")


def usage_line(error: BaseException) -> str:
    """Write a usage fault of typer with the command whose --help explains it."""
    message: str = error.format_message()  # type: ignore[attr-defined]
    command = getattr(getattr(error, "ctx", None), "command_path", "isthmus")
    end = "" if message.endswith((".", "?")) else "."
    return one_line("UsageError", f"{message}{end} See {command} --help.")


def os_message(error: OSError) -> str:
    """Say what the operating system refused, on which path, and what to do next."""
    where = error.filename if error.filename is not None else "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left on the device of {where}. Free some and give the same command again: what is whole is kept."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where} may not be read or written ({error.strerror}). Change its permissions or give another path."
    if error.errno == errno.EFBIG:
        return f"{where} is larger than this disk or account lets a file be. Give a path on another disk."
    if error.errno == errno.EPIPE:
        return f"{where} was closed before all was written. What was made before is kept."
    if error.errno == errno.ELOOP:
        return f"{where} is a link that leads back to itself. Give the path of a real file or folder."
    if error.errno == errno.ENAMETOOLONG:
        return f"{str(where)[:80]}... is longer than a name may be here. Give a shorter one."
    if error.errno == errno.ENOENT:
        return f"{where} does not exist. Check the path."
    return f"{where}: {error.strerror or error}."
