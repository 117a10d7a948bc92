"""References come in; one prototype a class goes out, with all that helps to tell it from the rest.

Imports `candidates` and what lies below it.
"""
