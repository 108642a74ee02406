"""Augmentations with explicit draws: DSA's operations and AugMix, CutMix, and policies on 8-bit pixels."""
