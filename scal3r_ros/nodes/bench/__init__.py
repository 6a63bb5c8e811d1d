"""The mapping node measured from outside."""
