"""Evaluation records: schema, columns, labels, reading, merging, and the sweep that makes one. No torch."""
