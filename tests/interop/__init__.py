"""Interoperability: do calls work with browsers, libwebrtc, GStreamer, ffmpeg and coturn?"""
