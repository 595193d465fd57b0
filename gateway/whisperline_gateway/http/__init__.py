"""HTTP: the routes, the WebSocket as a connection's peer, and our additions to uvicorn."""
