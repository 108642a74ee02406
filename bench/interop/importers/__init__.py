"""Readers of distilled sets that other people published; none of the files' code runs."""
