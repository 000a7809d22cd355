"""Readers of published layouts, one module a family of data sets.

A reader is a function `read(data, options, work) -> Reading`: `data` is the folder that the user downloaded, `options`
the benchmark's settings, `work` a folder for what has to be made first (points cut out of an array file, say).
"""
