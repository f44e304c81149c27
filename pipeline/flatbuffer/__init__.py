"""What a ``.tflite`` file says of itself: its tensors and operators, what they cost, and the recipe that made it.

Nothing here loads TensorFlow or runs a model.
"""
