"""The report of a study: ``report.html``, ``report.md``, ``trials.csv`` and ``figures/``, from its trials' folders alone.

``python -m cv_lab.report STUDY`` writes it, and so does every multirun at its end. Imports neither torch nor Lightning,
and neither pandas nor matplotlib: their imports alone take longer than the whole report of 50 trials.
"""
