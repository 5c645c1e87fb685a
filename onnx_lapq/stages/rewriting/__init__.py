"""What a run does to the float network before it is quantized: what that computes stays the same."""
