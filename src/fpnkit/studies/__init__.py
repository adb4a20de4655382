"""The paper's tables as programs: the same training for every row, so that only the pyramid differs."""

from ..evaluation.evaluate import Stopped
from .config import StudyConfig
from .study import Study, run_study
from .tables import STUDIES

__all__ = ["STUDIES", "Stopped", "Study", "StudyConfig", "run_study"]
