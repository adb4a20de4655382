"""From images to named arrays: engines, the predictor around them, and what they cost."""
