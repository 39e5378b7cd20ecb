"""The image that every component runs in, unless a run says otherwise (the pipelines' parameter ``image``)."""

IMAGE = "registry.example.org/ocrmem:0.1.0"
