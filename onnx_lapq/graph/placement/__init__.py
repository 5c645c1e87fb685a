"""Which tensors get a quantizer, at how many bits, for which target."""
