"""How operators run: at once with progress, delegated, or unattended for the panel; and how they are cancelled."""
