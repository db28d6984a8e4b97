"""Where it runs: the command line, Ray, units, resume, verify, decode."""
