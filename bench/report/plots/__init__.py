"""Plots; a method has one colour and one marker in all of them."""
