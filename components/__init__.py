"""Kubeflow Pipelines components, one file each: a typed signature around a function of `ocrmem.workflow`.

At the top of a component's module stand the standard library, kfp and `components.image` only: ocrmem is imported in
the body, which runs in the image. tests/components/test_guard.py holds that.
"""
