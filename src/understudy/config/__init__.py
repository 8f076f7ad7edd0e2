"""One YAML file per run, with dotted overrides, checked as a whole before anything heavy starts."""

from .component import Component
from .document import Document, dump_document, parse_document, parse_value, read_document
from .load import config_from_dict, dump_config, load_config
from .model import ConfigModel
from .reference import config_help, config_markdown

__all__ = [
    "Component",
    "ConfigModel",
    "Document",
    "config_from_dict",
    "config_help",
    "config_markdown",
    "dump_config",
    "dump_document",
    "load_config",
    "parse_document",
    "parse_value",
    "read_document",
]
