"""The emulator: requests, contexts, drafts, the step loop."""
