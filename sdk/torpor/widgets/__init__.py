"""Widgets for notebooks: a form that submits a job, and a card that follows one. Needs the extra ``widgets``."""

from torpor.widgets.card import JobCard
from torpor.widgets.form import JobForm

__all__ = ["JobCard", "JobForm"]
