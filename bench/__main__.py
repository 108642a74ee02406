"""`python -m bench` is `ddbench`."""

from bench.cli.app import main

main()
