"""All step sizes together: line search, Powell's method, the state of a search."""
