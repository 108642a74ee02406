"""`python -m bench` is `ddbench`."""

from bench.cli import main

main()
