"""Outputs of the published implementations, and the generators of the weights and data they were taken with."""
