"""`fpnkit train` that logs every step and draws nothing: python logged.py WORDS, or torchrun logged.py WORDS."""

import sys

from fpnkit.cli import main
from fpnkit.training.run_folder import RunFolder

RunFolder.LOG_EVERY = 1
RunFolder.draw_curves = RunFolder.draw_batch = RunFolder.draw_evaluation = lambda self, *given: None
sys.exit(main(sys.argv[1:]))
