"""Candidates of many images come in and lie in Lance tables; those of some images, or the most similar, go out.

Imports `candidates` and what lies below it.
"""
