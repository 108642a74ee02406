"""From a sweep file to the graph of its jobs: schema, presets, protocols, graph, estimate. Runs nothing."""
