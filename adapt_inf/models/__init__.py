"""Vision-language models: load one with its adapter, make batches, train, generate."""
