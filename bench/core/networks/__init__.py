"""The networks of the field, by name; `bench.core.networks.architecture` reads names and builds them."""
