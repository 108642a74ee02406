"""Pictures of the images that distilled sets decode to."""
