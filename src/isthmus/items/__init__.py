"""What is to be encoded: items, and how they are found in what a user names."""

from __future__ import annotations

from isthmus.items.find import Found, check_unique, find_items
from isthmus.items.in_memory import as_items
from isthmus.items.item import Item, Rejected

__all__ = ["Found", "Item", "Rejected", "as_items", "check_unique", "find_items"]
