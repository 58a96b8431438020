"""The site: pages written by hand, and `generate`, which writes the others from the repository."""
