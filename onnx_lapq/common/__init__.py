"""What every room may use: whole files, typed options, limits of the machine."""
