"""The model: a frozen language model, a frozen OCR encoder, and the one projector that is trained."""
