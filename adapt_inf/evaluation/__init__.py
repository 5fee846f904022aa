"""Metrics of answers, and the figures over rounds: accuracy, forgetting, transfer."""
