"""Run what is missing, in this process or on Ray Tune."""
