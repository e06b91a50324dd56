"""The two demonstrations of the command line: handwritten digits, and the seed network."""
