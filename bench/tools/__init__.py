"""What stands beside a sweep: recall of a memory for new tasks, and profiles."""
