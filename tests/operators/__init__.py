"""Tests of what the App loads."""
