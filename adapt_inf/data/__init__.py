"""Formats in, samples, shards, manifests: how data enters a pool and how it is read back."""
