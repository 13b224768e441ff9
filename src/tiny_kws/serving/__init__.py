"""A server of streams: many at once through one model, over Wyoming, WebSocket and HTTP."""
