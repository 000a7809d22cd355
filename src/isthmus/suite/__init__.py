"""A bridge on a benchmark: encoded, scored, and set beside simple methods, other recipes and what was published."""
