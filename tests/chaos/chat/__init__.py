"""Chaos over chat sync: clients that follow `docs/websocket.md`, and a witness in the database."""
