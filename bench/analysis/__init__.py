"""From records to frames: intervals, tables, comparisons, DD-Ranking, published figures. No torch."""
