"""Jobs run and results kept: the store, the jobs, one folder's session, inline or on Ray Tune."""
