"""From conversations to samples and pages on disk, and back."""
