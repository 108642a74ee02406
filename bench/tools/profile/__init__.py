"""`ddbench profile`: what a method spends its time on, and what all of its steps would cost."""
