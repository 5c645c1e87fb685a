"""The quantized graph: encodings, Q/DQ pairs, packing, and the segments that are simulated."""
