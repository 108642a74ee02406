"""From a sweep file to the graph of jobs: schema, presets, protocols, graph, estimate. Pure."""
