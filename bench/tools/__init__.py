"""Tools beside the sweep: recall of a memory for new tasks, and profiles."""
