"""From an item to a text, in a worker process."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.items import Item, Rejected
from isthmus.items.decoding.text import decode_text


@dataclass(frozen=True)
class TextDecoder:
    """A text to itself, checked; of an item with a file the file's whole text. Tokenizing is the model's business."""

    def __call__(self, item: Item) -> str:
        """The text of an item.

        Raises:
            Rejected: It is empty or no UTF-8.
        """
        if item.text is not None:
            return decode_text(item.text)
        try:
            return decode_text(item.read_bytes().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise Rejected("not valid UTF-8") from error
