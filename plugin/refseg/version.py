"""The version, in one place; fiftyone.yml and CHANGELOG.md repeat it, and tests/test_packaging.py holds them equal."""

VERSION = "0.2.0"
