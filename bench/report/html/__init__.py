"""One page that shows everything: a leaderboard, the other sections, the records to take away."""
