"""The films of benchmarks/foreign_footage.py, for tests."""

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[1] / "benchmarks" / "foreign_footage.py"
_SPEC = importlib.util.spec_from_file_location("foreign_footage", _PATH)
footage = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = footage
_SPEC.loader.exec_module(footage)
