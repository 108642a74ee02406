"""Whether a device computes what a CPU does, and how fast it is: `ddbench selftest`."""
