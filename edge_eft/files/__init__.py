"""What is on disk: recipes, GGUF headers, what they need of memory."""
