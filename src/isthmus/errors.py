"""The fault classes. A message is one line: what is wrong, what was got, what was expected, what to do next."""

from __future__ import annotations

MESSAGE_LIMIT = 400
"""Most letters of a message."""


class IsthmusError(Exception):
    """Base of every fault raised on purpose. The command line prints it as one line and ends with `exit_code`.

    A message above `MESSAGE_LIMIT` letters loses its middle: its start says which file, its end what to do, and what
    is so long between them is a value that a damaged file gave.
    """

    exit_code = 2

    def __init__(self, *args: object) -> None:
        super().__init__(*(_without_middle(arg) if isinstance(arg, str) else arg for arg in args))


def _without_middle(text: str) -> str:
    if len(text) <= MESSAGE_LIMIT:
        return text
    half = (MESSAGE_LIMIT - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


class SpaceError(IsthmusError):
    """A space folder is missing, not whole, of a newer format, or lacks what was asked of it."""


class FormatError(IsthmusError):
    """A file of the user cannot be read as what it was given for."""


class OverlapError(IsthmusError):
    """Two spaces do not share enough items of a modality."""


class ConfigError(IsthmusError):
    """An option or a configuration key is unknown, out of range or contradicts another."""


class BridgeError(IsthmusError):
    """A bridge folder is missing, not whole, of a newer format, or lacks what was asked of it."""


class FingerprintError(BridgeError):
    """Embeddings do not come from the encoder that the bridge was trained on."""


class EncoderError(IsthmusError):
    """An encoder is unknown, cannot be loaded, or cannot encode what it was given."""


class EvaluationError(IsthmusError):
    """Pairs, labels or embeddings given to an evaluation do not fit together."""


class DependencyError(IsthmusError):
    """An optional dependency is not installed; the message holds the exact command that installs it."""


class IsthmusWarning(UserWarning):
    """Something that works and may not be what was meant; the command line prints it as a line on standard error."""


class CheckFailed(IsthmusError):
    """The work was done and a check said no (too many rejected items, a tolerance not held)."""

    exit_code = 1
