"""The App in a real browser, on a real server."""
