"""The panel: its sections as JSON, what its buttons do, and the script that draws them."""
