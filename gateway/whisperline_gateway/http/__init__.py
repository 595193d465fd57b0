"""HTTP: the routes, the WebSocket as a connection's peer, and uvicorn with what it lacks."""
