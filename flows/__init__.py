"""Prefect flows: orchestration only, no maths, no torch import."""
