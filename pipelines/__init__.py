"""Kubeflow pipelines. Beside each NAME.py lies what it compiles to, NAME.yaml: `ocrmem pipeline compile` writes it."""
