"""What several tests need; tests/README.md says which helper is for what."""
