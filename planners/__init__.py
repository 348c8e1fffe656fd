"""Plans, the engine that runs them, and who writes them."""
