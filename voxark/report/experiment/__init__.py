"""The page of an experiment: its folder is read, measured, drawn and written as one file of HTML.

parts.py says what a page consists of; folder.py finds what an experiment holds; scores.py and groups.py
measure; results_section.py, funnel.py, curves_section.py, training.py, fhvae.py and making.py make Sections
of parts that hold no HTML; plots.py draws for plotly; build.py puts the sections together; render.py turns
them into HTML by page.html.j2, page.css and page.js.
"""
