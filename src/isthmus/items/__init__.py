"""What is to be encoded: items, and how they are found in what a user names."""

from __future__ import annotations

from isthmus.items.find import FoundItems, check_unique, find_items
from isthmus.items.in_memory import as_items
from isthmus.items.item import Item, Rejected

Found = FoundItems
"""Earlier name of `FoundItems`."""

__all__ = ["Found", "FoundItems", "Item", "Rejected", "as_items", "check_unique", "find_items"]
