"""Where a worker is asked."""

import pytest

from app.settings import Settings
from app.status import metrics_url


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_url_is_where_the_worker_listens(host: str, shown: str) -> None:
    assert metrics_url(Settings(web_host=host, web_port=7000)) == f"http://{shown}:7000/metrics"
