"""What the app leaves out of Faust's."""

import subprocess
import sys

CODE = """
from streaming.app import StreamApp
from streaming.config import EngineConfig
from streaming.telemetry import NullMetrics

app = StreamApp(EngineConfig(bootstrap="x:9092", app_id="x"), log_topic="x", metrics=NullMetrics(), web_enabled=False)
before = list(app.sensors)
list(app.on_init_dependencies())
print(len(before), [type(sensor).__name__ for sensor in app.sensors])
"""


def test_faust_has_no_monitor_that_counts_each_chunk() -> None:
    """Five calls for each, and nobody asks it. In a process of its own, since an app keeps its event loop."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["0", "[]"], done.stderr
