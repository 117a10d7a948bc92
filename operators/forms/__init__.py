"""What a form asks for, from what the App has open; what is said of a result. Imports nothing heavy."""
