"""The continuum of datasets and the tiny base model that ship with the product."""
