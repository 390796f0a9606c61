"""The edges: each module here meets one other library, and none imports another."""
