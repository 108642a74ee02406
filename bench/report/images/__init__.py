"""Pictures of what distilled sets decode to."""
