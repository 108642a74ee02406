"""Augmentations whose random draws are explicit: DSA, AugMix, CutMix, AutoAugment and RandAugment."""
