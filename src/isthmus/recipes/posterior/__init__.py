"""Joining spaces through an item's posterior over the items that they share, and through canonical directions."""
