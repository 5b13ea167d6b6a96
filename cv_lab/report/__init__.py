"""The report of a study: page, Markdown, LaTeX, tables, findings and figures, from the trials' folders.

``python -m cv_lab.report STUDY`` writes it, and so does every multirun at its end. Imports neither torch nor Lightning,
and neither pandas nor matplotlib, whose imports alone take as long as the whole report of 50 trials.
"""
