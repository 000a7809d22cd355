"""Benchmarks by name: what each is, and readers of the layouts that their authors published."""
