"""Which samples to train on and which to forget: arrays in, arrays out; to be read beside the paper."""
