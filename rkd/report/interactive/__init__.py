"""Pictures that answer: drawn in the page by scripts the book carries, with no kernel and no network."""
