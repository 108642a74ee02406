"""Checks that a method keeps the contract; also from outside: `pytest --pyargs bench.testing`."""
