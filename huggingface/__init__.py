"""To Hugging Face's libraries and back: a run as a model of theirs, scored by their harness."""
