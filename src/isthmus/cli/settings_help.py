"""The keys of --set with their defaults and meanings, as --help-settings prints them."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

INDENTED: Final[dict[str, Any]] = {"subsequent_indent": " " * 4, "break_on_hyphens": False}


def settings_option(verb: str) -> Any:
    """The option --help-settings of a verb, which prints the settings of its methods, and leaves."""

    def run(wanted: bool) -> None:
        if wanted:
            print("\n".join(settings_lines(verb)))
            raise typer.Exit()

    return typer.Option("--help-settings", help="List the keys of --set, and leave.", callback=run, is_eager=True)


def settings_lines(verb: str) -> Iterator[str]:
    """Every setting of `connect` or `extend`: key, default, and what it does."""
    from isthmus.core.terminal import line_width
    from isthmus.recipes.connect import ConnectConfig
    from isthmus.recipes.extend import ExtendConfig
    from isthmus.recipes.posterior.config import PosteriorConfig

    trained: type[BaseModel] = ConnectConfig if verb == "connect" else ExtendConfig
    method = "c-mcr" if verb == "connect" else "ex-mcr"
    for title, model in ((f"{method} (trained)", trained), ("auto, posterior, cca", PosteriorConfig)):
        yield f"Settings of {title}, for --set KEY=VALUE and --config FILE.toml:"
        words = meanings(model)
        for name, field in model.model_fields.items():
            yield from textwrap.wrap(f"  {name}  [default: {shown(field.default)}]", line_width(), **INDENTED)
            yield from textwrap.wrap(words.get(name, ""), line_width(), initial_indent=" " * 4, **INDENTED)
        yield ""


def shown(value: object) -> str:
    """A default as --set takes it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value)


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Read `name: words` out of the Attributes sections of a model and of the models it is made of."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        section = inspect.cleandoc(one.__dict__.get("__doc__") or "").split("Attributes:")[-1]
        for name, words in re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE):
            found[name] = " ".join(words.split())
    return found
