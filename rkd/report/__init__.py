"""What the book shows."""
