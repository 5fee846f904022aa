"""Per-sample gradient sketches and the signals that the same pass yields."""
