"""Students trained on a distilled set and scored: the metrics, and what the set takes to store."""
