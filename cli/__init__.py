"""The command line: click commands, progress and tables; no logic."""
