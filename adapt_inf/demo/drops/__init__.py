"""The drops of the continuum, a module a family: what each asks, how often, and what only its evaluation shows."""
