"""Training of proj: arguments, trainer, curriculum, checkpoints and the verb ``train``."""
