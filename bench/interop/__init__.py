"""Other people's files: read, scored, exported, diagnosed, and contributed results checked."""
