"""The paper's tables as programs: the same training for every row, so that only the pyramid differs."""

from .config import StudyConfig
from .row import Stopped
from .study import Study, run_study
from .tables import STUDIES

__all__ = ["STUDIES", "Stopped", "Study", "StudyConfig", "run_study"]
