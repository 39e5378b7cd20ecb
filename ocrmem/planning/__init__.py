"""``ocrmem train --plan``: what a configuration needs, in memory, computation and time, before a GPU is asked for.

Nothing is loaded and nothing is run: shapes come from configurations, parameters are counted on the meta device,
and the rest is arithmetic over them.
"""
