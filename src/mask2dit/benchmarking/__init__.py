"""Speed, memory and exactness on the machine at hand: attention by form and by number of scenes, and steps of a whole transformer.

Owns what is measured and how, its JSON, tables and plots. Forms of attention that the package itself never uses are here to compare with.
"""

from mask2dit.benchmarking.networks import check_room
from mask2dit.benchmarking.results import Results
from mask2dit.benchmarking.settings import Settings, check_output, choose_settings, free_bytes

__all__ = ["Results", "Settings", "check_output", "check_room", "choose_settings", "free_bytes"]
