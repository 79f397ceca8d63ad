"""Data: the only place that knows data-set columns."""

from align.errors import DataError

from .loading import DataConfig, DataSource, load_data, load_preferences
from .rows.normalise import Rows

__all__ = ["DataConfig", "DataError", "DataSource", "Rows", "load_data", "load_preferences"]
