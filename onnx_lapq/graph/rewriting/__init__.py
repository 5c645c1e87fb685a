"""Other weights for the same function: equalization chains, OCS, DUAL."""
