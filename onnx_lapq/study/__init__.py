"""Commands beside quantize: scores, gate, comparison, landscape, inspection."""
