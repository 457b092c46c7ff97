"""What the watch of the training log costs per example: records one by one, against many at once, in one run.

    python -m bench.watch
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable

from app.compiling import choose
from learning.backtest import backtest
from learning.costs import costs_of
from learning.learn import Learner, ModelError
from learning.losses import LossAlarm
from learning.records import Example, LogRecord
from learning.watch import Watch
from pipelines.flights import flights, history

ITEMS = int(os.environ.get("ITEMS", "60000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
AT_ONCE = 256
