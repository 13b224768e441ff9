"""A server that runs many streams through one model at once, over Wyoming, WebSocket and HTTP."""
