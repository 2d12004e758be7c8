"""The HTTP server: starlette, without native code; the engine lives in a child process."""
