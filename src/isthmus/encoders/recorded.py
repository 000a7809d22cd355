"""Encoders as files record them: a space or a bridge is data, so what it says is checked before anything is loaded.

From a record only encoders of the registry are made, from a repository of the Hub or their own default, with options
of a closed list. Whatever else it names (a class, a file, a folder, an address) is loaded only if the user names it
in this very command or call, or allowed it in a file of their own (see `isthmus.encoders.trusted`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.encoders.registry import REGISTRY, load_encoder
from isthmus.encoders.trusted import Trusted, find_trusted, trusted_file
from isthmus.errors import EncoderError

if TYPE_CHECKING:
    from isthmus.encoders.protocol import Encoder

IDENTITY = ("library", "id", "revision", "weights_sha256")
DECLARED = "declared"
"""The library of an encoder that was declared when embeddings were imported: its weights are not known."""
_LONGEST = 512
"""Most characters of one text of a record: names are short, and messages repeat them."""

_PART = r"[A-Za-z0-9_][\w-]*(?:\.[\w-]+)*"  # no leading dot, no two dots in a row: no way up a tree
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})?")
_REVISION = re.compile(rf"{_PART}(?:/{_PART})*")
_OPENCLIP = re.compile(rf"(?:hf-hub:)?{_PART}/{_PART}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _one_of(*allowed: str) -> Callable[[Any], bool]:
    """Check for a recorded option that is one of some words."""
    return lambda value: isinstance(value, str) and value in allowed


def _number(low: float, high: float, *kinds: type[int | float]) -> Callable[[Any], bool]:
    """Check for a recorded option that is a number within bounds."""

    def fits(value: Any) -> bool:
        return isinstance(value, kinds) and not isinstance(value, bool) and low <= float(value) <= high  # NaN is not

    return fits


def _is_repository(value: Any) -> bool:
    """Whether a recorded option names a repository."""
    return isinstance(value, str) and bool(_REPOSITORY.fullmatch(value)) and not Path(value).exists()


def _is_revision(value: Any) -> bool:
    """Whether a recorded option is a revision."""
    return value is None or (isinstance(value, str) and len(value) <= 200 and bool(_REVISION.fullmatch(value)))


def _is_prompt(value: Any) -> bool:
    """Whether a recorded option is a prompt."""
    return isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()


_DTYPE = {"dtype": _one_of("float32", "bfloat16", "float16")}
_SECONDS = _number(0.01, 3600.0, int, float)
OPTIONS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "clip": {**_DTYPE, "revision": _is_revision},
    "clap": {**_DTYPE, "revision": _is_revision, "hop_seconds": _SECONDS},
    "ulip": {
        **_DTYPE,
        "points": _number(1, 10**6, int),
        "up": _one_of("x", "y", "z", "-x", "-y", "-z"),
        "tokenizer": _is_repository,
    },
    "text": {**_DTYPE, "revision": _is_revision, "prompt": _is_prompt},
    "openclip": _DTYPE,
    "sentence-transformers": {
        **_DTYPE,
        "revision": _is_revision,
        "window_seconds": _SECONDS,
        "hop_seconds": _SECONDS,
    },
    "toy": {},
}
"""By encoder of the registry, the options that a file may record, each with what its value may be."""


def load_recorded(record: Any, *, where: str, modalities: Collection[str] = (), device: str | None = None) -> Encoder:
    """Load the encoder that a file records, if it is one that a file may name.

    Args:
        record: The record: library, id, revision, weights_sha256 and, perhaps, name and options.
        where: Whose it is, for messages, such as "'clap/audio'".
        modalities: Modalities of the space, which tell CLAP from CLIP.
        device: Where the model goes.

    Raises:
        EncoderError: The record names something that a file may not; the message says what to pass instead.
    """
    record = checked_record(record, where=where)
    name = recorded_name(record, where=where, modalities=modalities)
    options = record.get("options") or {}
    if trusted := find_trusted(name):
        options = _trusted_options(trusted, options, where)
    else:
        check_name(name, where=where)
        check_options(name, options, where=where)
    return load_encoder(name, device=device, **options)


def load_named(
    name: str, record: Any, *, device: str | None = None, options: Mapping[str, Any] | None = None
) -> Encoder:
    """Load the encoder that the user named in this call, with what a record says of plain settings.

    A registered encoder takes those options of the record that a file may give it (a window, a number format); a class
    of the user's takes none of them.

    Args:
        name: As for `--encoder`.
        record: The record of the space.
        device: Where the model goes.
        options: The user's own options, which go before the record's.
    """
    kind = name.partition(":")[0]
    recorded = record.get("options") if isinstance(record, Mapping) else None
    known = OPTIONS.get(kind, {})
    plain = {k: v for k, v in recorded.items() if k in known and known[k](v)} if isinstance(recorded, Mapping) else {}
    if "@" in name:
        plain.pop("revision", None)
    return load_encoder(name, device=device, **{**plain, **(options or {})})


def checked_record(record: Any, *, where: str) -> dict[str, Any]:
    """A record as plain text and a table of options, everything else of it left out.

    Raises:
        EncoderError: It is no record; the message says which part.
    """
    if not isinstance(record, Mapping):
        raise EncoderError(f"{where} records {type(record).__name__} as its encoder, expected an object. {_ADVICE}")
    plain: dict[str, Any] = {}
    for key in (*IDENTITY, "name"):
        value = record.get(key)
        if value is not None and not (isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()):
            raise EncoderError(f"{where} records {_short(value)} as its encoder's {key}, expected a name. {_ADVICE}")
        if value is not None:
            plain[key] = value
    options = record.get("options")
    if options is not None and not isinstance(options, Mapping):
        raise EncoderError(f"{where} records {_short(options)} as its encoder's options, expected a table. {_ADVICE}")
    return {**plain, "options": dict(options)} if options else plain


def loadable_name(record: Any, *, where: str, modalities: Collection[str] = ()) -> str:
    """The name that a record's encoder is loaded by, if a file may name it or the user allowed it.

    Raises:
        EncoderError: The record does not tell, or names what a file may not; the message says what to pass.
    """
    name = recorded_name(checked_record(record, where=where), where=where, modalities=modalities)
    if not find_trusted(name):
        check_name(name, where=where)
    return name


def recorded_name(record: Mapping[str, Any], *, where: str, modalities: Collection[str] = ()) -> str:
    """The name that a record's encoder is loaded by; whether a file may name it is another question (`check_name`).

    Raises:
        EncoderError: The record does not tell.
    """
    library, name = record.get("library"), record.get("id")
    revision = record.get("revision") if record.get("revision") != "local" else None
    if library == "isthmus" and name:
        return str(name)
    if library == DECLARED and (":" in str(name) or name in REGISTRY):
        return f"{name}@{revision}" if revision else str(name)
    if record.get("name") and not _COMMIT.fullmatch(revision or ""):
        # A file or folder of the user's, or a class: only the name it was loaded by finds it again.
        return str(record["name"])
    at = f"@{revision}" if revision else ""
    if library == "ulip":
        return f"ulip:{name}"
    if library == "open_clip":
        return f"openclip:{name}" + (f"/{revision}" if revision else "")
    if library == "sentence-transformers":
        kind = str(record.get("name") or "").partition(":")[0]
        return f"{kind if kind == 'text' else library}:{name}{at}"
    if library == "transformers":
        return f"{'clap' if 'audio' in modalities else 'clip'}:{name}{at}"
    raise EncoderError(
        f"{where} does not say how to load its encoder ({library or 'unknown'} {name or 'encoder'}). "
        f"Name it with --encoder NAME (encoder=); `isthmus encoders` lists what there is."
    )


def is_declared(record: Mapping[str, Any], identity: Mapping[str, Any], name: str | None) -> bool:
    """Whether a record only declares an encoder, and an encoder at hand is the declared one, as far as names tell.

    Args:
        record: The record of a space: `library`, `id`, `revision`.
        identity: The same of the encoder at hand.
        name: The name that it was loaded by, such as "clip:openai/clip-vit-base-patch32".
    """
    if record.get("library") != DECLARED:
        return False
    head, _, at = _full_name(name or "").partition("@")
    revisions = (None, at or None, identity.get("revision"))
    names = {head, identity.get("id")}
    return _full_name(str(record.get("id") or "")) in names and record.get("revision") in revisions


def _full_name(name: str) -> str:
    """A name with the checkpoint that a short one stands for."""
    kind, _, checkpoint = name.partition(":")
    return f"{kind}:{checkpoint or REGISTRY[kind].checkpoint}" if kind in REGISTRY else name


def check_name(name: str, *, where: str) -> None:
    """Refuse a name that a file may not give: a class, a path, an address, or what only looks like the Hub's.

    Raises:
        EncoderError: It is one; the message says what to pass.
    """
    kind, _, checkpoint = name.partition(":")
    if kind not in REGISTRY:
        raise _refusal(name, where, "which is no encoder of isthmus, and a file never has code run")
    if not checkpoint or checkpoint == REGISTRY[kind].checkpoint:
        return
    if kind == "toy":
        from isthmus.encoders.toy.towers import DIMS

        fits = checkpoint in DIMS
    elif kind == "openclip":
        fits = bool(_OPENCLIP.fullmatch(checkpoint)) and not Path(checkpoint.partition("/")[2]).exists()
    elif kind == "ulip":  # its checkpoints are files
        fits = False
    else:
        repository, at, revision = checkpoint.partition("@")
        fits = bool(_REPOSITORY.fullmatch(repository)) and (not at or _is_revision(revision or "/"))
        fits = fits and not Path(repository).exists() and not Path(checkpoint).exists()
    if not fits:
        raise _refusal(name, where, "a file or folder, which a file may not choose")


def check_options(name: str, options: Mapping[str, Any], *, where: str) -> None:
    """Refuse options that a file may not give a registered encoder.

    Raises:
        EncoderError: One is not in the closed list, or not of its kind.
    """
    known = OPTIONS[name.partition(":")[0]]
    for key, value in options.items():
        if key not in known:
            raise EncoderError(
                f"{where} records the encoder option {_short(key)}, which a file may not give {_short(name)} "
                f"(it may give {', '.join(known) or 'none'}). {_ADVICE}"
            )
        if not known[key](value):
            raise EncoderError(
                f"{where} records the encoder option {key} = {_short(value)}, which a file may not give. {_ADVICE}"
            )


_ADVICE = "If you trust it, name the encoder yourself: --encoder NAME (encoder=)."


def _refusal(name: str, where: str, why: str) -> EncoderError:
    """Fault for a recorded encoder that is not loaded without being named."""
    file = trusted_file()
    allow = f", or allow it in {file}" if file is not None else ""
    return EncoderError(
        f"{where} says that its encoder is {_short(name)}, {why}. Name the encoder that you trust yourself: "
        f"--encoder NAME (encoder=){allow}. Without it the bridge still projects and searches by vectors (--id)."
    )


def _trusted_options(trusted: Sequence[Trusted], recorded: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options that the user wrote down, and for a registered encoder the plain ones that a file may give."""
    name = trusted[0].name
    known = OPTIONS.get(name.partition(":")[0], {})
    plain = {key: value for key, value in recorded.items() if key in known and known[key](value)}
    for one in trusted:
        if all(one.options.get(key, plain.get(key, ...)) == value for key, value in recorded.items()):
            one.open_folder()
            return {**plain, **one.options}
    raise EncoderError(
        f"{where} records the encoder options {_short(dict(recorded))}, and {trusted_file()} allows {_short(name)} "
        "only without them. Write them there if you trust them, or name the encoder: --encoder NAME (encoder=)."
    )


def _short(value: Any) -> str:
    """A value of a stranger's for a message: one line, printable, at most 80 characters."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
