"""Pure tensor functions that the model and its dropouts share."""
