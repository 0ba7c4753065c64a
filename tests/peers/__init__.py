"""Peers without WebRTC: do memory and WebSocket peers behave as the interface promises?"""
