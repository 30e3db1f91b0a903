"""Carriers of text messages: the WebSocket to API Gateway, and one in memory for tests."""
