"""The hub where environments are not saved."""

from __future__ import annotations

from pathlib import Path

from tests.spawning.hub_site import Site


def test_a_stop_in_the_hub_is_refused_with_the_way_out_and_the_server_runs_on(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", first="save_environments = false\n")
    try:
        site.start_proxy()
        site.start_hub()
        site.signed_in("ada")
        pid = site.start_server("first")
        answer = site.asks_to_stop("first")
        assert answer.status_code == 409
        assert "Stop it instead, which discards what was installed" in answer.json()["message"]
        assert site.server("first")["ready"] is True
        assert site.server_pid("first") == pid
        assert site.api.wishes == []
    finally:
        site.close()
