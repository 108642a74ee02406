"""Plots. A method has the same colour and marker in all of them."""
