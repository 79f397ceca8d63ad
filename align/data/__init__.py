"""Preference data: the only place that knows data-set columns."""

from .load import DataConfig, DataSource, load_preferences
from .normalise import DataError

__all__ = ["DataConfig", "DataError", "DataSource", "load_preferences"]
