"""Figures and pages for a person; matplotlib and jinja2, the extra ``report``."""
