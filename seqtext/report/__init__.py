"""Pages about runs, and the pictures in them."""
