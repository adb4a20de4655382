"""Run a training and kill it, again and again, until it has been killed often enough and has finished.

python killed.py KILLS SEED LONGEST -- WORDS OF fpnkit train

The parent imports everything and computes nothing; each life is a fork of it, so that lives begin at once.
"""

import os
import random
import signal
import sys
import time

from fpnkit.cli import main

kills, seed, longest = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
words, chance = sys.argv[5:], random.Random(seed)
folder = words[words.index("--out") + 1]
killed = 0
while True:
    begun = os.path.exists(os.path.join(folder, "state", "last.pt"))
    child = os.fork()
    if child == 0:
        os._exit(main([*words, *(["--resume"] if begun else [])]))
    if killed < kills:
        time.sleep(chance.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        killed += 1
    else:
        print(f"killed {killed} times")
        sys.exit(os.WEXITSTATUS(status))
