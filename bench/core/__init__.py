"""All that methods may import: errors, randomness, registry, distilled sets, loop, networks, training."""

from bench.core.memory import reuse_memory

reuse_memory()
