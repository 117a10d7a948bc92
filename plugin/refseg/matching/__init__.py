"""Candidates and prototypes come in; ranked instances with labels and scores go out.

Imports `prototypes`, `candidates` and what lies below them.
"""
