"""What people look at: figures, and static pages from results."""
