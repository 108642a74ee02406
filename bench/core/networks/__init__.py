"""The networks of the field; `bench.core.networks.architecture` reads their names and builds them."""
