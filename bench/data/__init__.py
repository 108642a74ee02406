"""Data sets: named by a sweep file, decoded once into a cache file, loaded by mapping that file."""
