"""How the demo models were trained."""
