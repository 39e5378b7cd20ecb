"""Evaluation on held-out conversations: what memory gives against baselines of the same length.

`evaluate.py` is the verb, `baselines.py` says what each variant puts into the sequence, `scoring.py` runs the
model on it, `latency.py` times the way from text to an answer,
`html_report.py` and `svg_charts.py` draw evaluation.html, `result.py` and `gate.py` read evaluation.json.
"""
