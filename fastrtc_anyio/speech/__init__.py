"""Speech: voice activity, speech to text, text to speech.

* :mod:`.vad` - what a voice-activity model is, and a call's audio cut up for one
* :mod:`.energy` - one that needs nothing
* :mod:`.silero` - the Silero model; :mod:`.segments` - its batch use
* :mod:`.batch` - FastRTC's kind of model as one of ours
* :mod:`.stt` - speech to text; :mod:`.pocketsphinx` - one that needs a package alone
* :mod:`.tts` - text to speech, sentence by sentence; :mod:`.espeak` - one that needs a program
* :mod:`.sentences` - text cut up for it, as it comes
* :mod:`.recording` - audio from users' code, checked
"""
