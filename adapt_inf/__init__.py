"""Lifelong multimodal instruction tuning by dynamic data selection (Adapt-infinity, arXiv 2410.10636)."""

__version__ = "0.1.0"
