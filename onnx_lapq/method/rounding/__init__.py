"""Codes of the weights: windows, moments, compensation, bias correction."""
