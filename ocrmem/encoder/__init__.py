"""The frozen OCR encoder, and the store of what it made of every page."""
