"""What a float graph goes through before it is quantized, one rewrite per file."""
