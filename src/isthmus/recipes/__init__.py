"""The two recipes of the papers, each one file to be read from top to bottom."""
