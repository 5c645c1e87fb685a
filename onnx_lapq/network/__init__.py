"""A network on the bench: samples, float network, layers, step sizes, loss."""
