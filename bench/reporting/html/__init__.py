"""The HTML page of a report: a leaderboard, the other sections, and the records to download."""
