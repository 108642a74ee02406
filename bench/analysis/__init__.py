"""From records to frames: intervals, summaries, ranks, tests, DD-Ranking, published figures. No torch."""
