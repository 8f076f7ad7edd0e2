"""Foreign rows: declared field mappings in YAML, and Python generators of records."""

from .format import names_mapping, open_mapping
from .generator import RECORD
from .spec import FieldMapping

__all__ = ["RECORD", "FieldMapping", "names_mapping", "open_mapping"]
