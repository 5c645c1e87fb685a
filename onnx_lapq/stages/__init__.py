"""What a run does, one stage a file, and the state that an interrupted run leaves."""
