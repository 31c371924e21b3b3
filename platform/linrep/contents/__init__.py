"""What samples look like: their images fetched again, windows of their texts, and where patches lie. Knows no stage."""
