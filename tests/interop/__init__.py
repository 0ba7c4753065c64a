"""Do calls work with browsers, libwebrtc, GStreamer, ffmpeg and coturn?"""
