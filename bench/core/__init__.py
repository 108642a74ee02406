"""All that methods may import: errors, randomness, registry, distilled sets, loop, networks, training."""
