"""Data sets: what a config may ask for, decoded once into a cache file, loaded by mapping that file."""
