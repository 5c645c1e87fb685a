"""The record of a run, its page and its figures."""
