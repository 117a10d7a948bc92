"""What lies in images whose objects are known comes in; thresholds and negatives go out.

Imports `matching` and what lies below it.
"""
