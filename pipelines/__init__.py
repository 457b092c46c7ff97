"""What a user writes: one file per pipeline, and the vocabulary it is written in."""
