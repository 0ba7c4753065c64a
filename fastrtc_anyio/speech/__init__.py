"""Speech: voice activity, speech to text, text to speech.

Protocols, which any model can implement:

* :mod:`.vad`: voice activity, and the segmentation of a call's audio for it
* :mod:`.stt`: speech to text
* :mod:`.tts`: text to speech, sentence by sentence

Models, one module each: :mod:`.energy` and :mod:`.silero` (voice activity), :mod:`.batch` (adapter
for FastRTC's voice-activity models), :mod:`.moonshine` and :mod:`.pocketsphinx` (speech to text),
:mod:`.kokoro`, :mod:`.espeak` and :mod:`.cartesia` (text to speech). :mod:`.loaders` loads them by
name.

Parts of them: :mod:`.segments` and :mod:`.sentences`.
"""
