"""A sample's life: which rounds looked at it, what they made of it and why."""
