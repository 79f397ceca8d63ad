"""Loads data; the only place that knows the columns of data sets."""

from align.errors import DataError

from .loading import DataConfig, DataSource, load_data, load_preferences
from .rows.normalise import Rows

__all__ = ["DataConfig", "DataError", "DataSource", "Rows", "load_data", "load_preferences"]
