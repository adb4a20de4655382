"""What each level of the pyramid made of a photograph."""
