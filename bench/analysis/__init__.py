"""Analysis: from records to frames. Intervals, summaries, ranks, tests, DD-Ranking, published figures. No torch."""
