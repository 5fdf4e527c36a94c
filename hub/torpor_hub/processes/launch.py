"""Starting a workspace's server under a reaper."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from torpor_hub.domain.workspaces import WorkspaceRun
from torpor_hub.errors import PlaceError
from torpor_hub.processes import identity, layering, records
from torpor_hub.processes.identity import Identity
from torpor_hub.processes.records import RunRecord

REAPER = Path(__file__).with_name("reaper.py")
LOG_FILE = "logs/server.log"
WORKSPACE_MARK = "TORPOR_WORKSPACE"
GRANT_MARK = "TORPOR_GRANT"
START_WITHIN_S = 20.0
LAST_LINES = 20
TAIL_BYTES = 256 * 1024


def launch(
    run: WorkspaceRun, command: Sequence[str], environment: Mapping[str, str], port: int, *, log: Path
) -> Identity:
    """Start ``command`` under a reaper of its own and return the reaper's identity, once the record of the run stands.

    The server gets ``environment``, the run's own variables over it, the paths of the workspace's environment and the two
    marks by which everything of this start is found again. It starts in the home; its output is added to ``log``.

    Raises:
        PlaceError: when the workspace runs already or the reaper does not start; the text ends with the log's last lines.
    """
    root, platform = Path(run.root_dir), layering.here()
    running = read_run(root)
    if running is not None and is_running(running):
        raise PlaceError(f"The workspace {run.workspace_id} runs already, as {running.handle}.")
    start = records.Start(
        workspace_id=run.workspace_id,
        grant_id=run.grant_id,
        root=str(root),
        command=list(command),
        environment=_environment(run, environment, platform),
        cwd=run.home_dir,
        port=port,
    )
    _run_reaper(platform.interpreter, records.write_start(root, start), log)
    record = read_run(root)
    if record is None or record.grant_id != run.grant_id:
        raise PlaceError(f"The reaper of {run.workspace_id} left no record of its start. {last_lines(log, LAST_LINES)}")
    return identity.parse(record.handle)


def read_run(root: Path) -> RunRecord | None:
    """Return the record of the latest run in the workspace's folder ``root``; None where it never ran or was removed.

    Raises:
        PlaceError: when the record cannot be read. Nobody knows then whether the workspace runs.
    """
    return records.read(root)


def is_running(record: RunRecord) -> bool:
    """Return whether the run's reaper lives, or its server where the reaper was killed."""
    return any(identity.alive(identity.parse(handle)) for handle in (record.handle, record.server) if handle)


def last_lines(log: Path, count: int) -> str:
    """Return the last ``count`` lines of a log; empty where there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - TAIL_BYTES))
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-count:])
    except FileNotFoundError:
        return ""


def _environment(run: WorkspaceRun, environment: Mapping[str, str], platform: layering.Platform) -> dict[str, str]:
    inherited = {**environment, **run.environment}
    marks = {WORKSPACE_MARK: run.workspace_id, GRANT_MARK: run.grant_id}
    return layering.variables(Path(run.root_dir), Path(run.home_dir), platform, inherited) | marks


def _run_reaper(interpreter: Path, start_file: Path, log: Path) -> None:
    """Run the reaper until it has left for a session of its own."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = [str(interpreter), "-I", "-S", str(REAPER), str(start_file)]
    try:
        with log.open("ab") as output:
            ended = subprocess.run(
                program,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={},
                start_new_session=True,
                timeout=START_WITHIN_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PlaceError(f"The workspace's reaper did not start: {error}.") from error
    finally:
        start_file.unlink(missing_ok=True)
    if ended.returncode != 0:
        raise PlaceError(f"The workspace's reaper did not start. {last_lines(log, LAST_LINES)}")
