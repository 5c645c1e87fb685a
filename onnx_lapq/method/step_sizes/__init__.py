"""Step sizes tensor by tensor: L_p error, baselines, interpolation over p."""
