"""A toy of each kind that beatline takes from outside: each a file, as a stranger would write it."""
