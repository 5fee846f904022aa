"""Strategies against each other, over several seeds, on the same drops from the same base."""
