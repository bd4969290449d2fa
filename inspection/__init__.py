"""Looking at a trained model's masks: what they drop, and what that does."""
