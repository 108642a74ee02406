"""Distilled sets that other people published, read without running code of theirs."""
