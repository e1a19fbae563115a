"""Interactive pictures: drawn in the page by scripts that the book carries, with no kernel and no network."""
