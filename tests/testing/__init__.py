"""Public test tools: do they do what their documentation says, and notice when they cannot?"""
