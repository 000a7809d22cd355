"""Worlds: a folder of spaces, their bridge and an index, made from raw files by one command and kept up to date."""
