"""What `verify` checks inside of images of workspaces: installing, kernels, JupyterLab, and a job of each kind."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from checks import PYTHON, USER_ID, Check, Wrong, output, owned, platform_is_roots, require, user, versions
from checks import nothing_of_the_builder as nothing_left
from job_api import JobApi  # type: ignore[import-not-found] # mounted beside this

ROOT = Path("/opt/workspace")
ENV = ROOT / "env"
ENTRY = (str(PYTHON), "-I", "-m", "torpor_hub.programs.workspace")
PROBE = "torpor_verify_probe"
ATTEMPT = "job-verify-a1"
TOKEN = "torpor.token"  # noqa: S105 - what the stand-in for the api expects
AMOUNT = {"cpu_milli": 1000, "memory_bytes": 1024**3, "gpu_count": 0}
JOB_S = 180


def all_checks() -> Sequence[Check]:
    """Return the checks of an image of workspaces, in their order."""
    layout = (versions, user, platform_is_roots, nothing_left, environment_is_the_users, configuration_is_roots)
    return (*layout, server_answers, extension_is_enabled, kernel_sees_what_pip_installs, a_job_of_every_kind)


def environment_is_the_users(labels: dict[str, str]) -> str:
    """The environment belongs to the user of workspaces as a whole."""
    del labels
    for folder in (ROOT / "runtime", ROOT / "logs"):
        require(folder.stat().st_uid == USER_ID, f"{folder} is not the user's.")
    return owned(ENV, USER_ID)


def configuration_is_roots(labels: dict[str, str]) -> str:
    """What lies beside the environment is root's."""
    del labels
    found = [owned(ROOT / folder, 0, writable_by_others=False) for folder in ("bin", "jupyter", "config")]
    return ", ".join(found)


def server_answers(labels: dict[str, str]) -> str:
    """The entry point becomes the server."""
    del labels
    return output(*ENTRY, "--version").splitlines()[-1]


def extension_is_enabled(labels: dict[str, str]) -> str:
    """JupyterLab finds both halves of Torpor's extension."""
    del labels
    lab = output(PYTHON, "-I", "-m", "jupyter", "labextension", "list")
    line = next((line for line in lab.splitlines() if "@torpor/lab" in line), "")
    require("enabled" in line and "OK" in line, f"JupyterLab lists: {lab}")
    server = output(PYTHON, "-I", "-m", "jupyter", "server", "extension", "list")
    require("torpor_lab" in server and "X torpor_lab" not in server, f"Jupyter Server lists: {server}")
    return " ".join(re.sub(r"\x1b\[\d*m", "", line).split())


def kernel_sees_what_pip_installs(labels: dict[str, str]) -> str:
    """What the user installs is there in a kernel, and not on the platform's interpreter."""
    del labels
    with tempfile.TemporaryDirectory() as folder:
        output(ENV / "bin/pip", "install", "--no-index", "--no-deps", "--quiet", write_wheel(Path(folder)))
    where = in_kernel(f"import sys, {PROBE}; print(sys.executable, {PROBE}.__file__)")
    require(
        where.split()[0].startswith(str(ENV)) and where.split()[1].startswith(str(ENV)), f"The kernel says: {where}"
    )
    seen = subprocess.run([PYTHON, "-I", "-c", f"import {PROBE}"], capture_output=True, check=False)
    require(seen.returncode, "The platform's interpreter sees what the user installed.")
    output(ENV / "bin/pip", "uninstall", "--yes", "--quiet", PROBE)
    return in_kernel(
        "import pandas, pyarrow, torpor, ipywidgets; print('pandas', pandas.__version__, 'pyarrow', pyarrow.__version__)"
    )


def in_kernel(code: str) -> str:
    """Return what ``code`` prints in a kernel that is started as JupyterLab starts one."""
    program = """
        import sys
        from jupyter_client.manager import start_new_kernel
        manager, client = start_new_kernel(kernel_name="python3")
        said = []
        def hear(message):
            if message["header"]["msg_type"] in ("stream", "error"):
                said.append(message["content"].get("text") or "\\n".join(message["content"]["traceback"]))
        reply = client.execute_interactive(sys.argv[1], output_hook=hear, timeout=60)
        manager.shutdown_kernel(now=True)
        print("".join(said))
        sys.exit(reply["content"]["status"] != "ok")
    """
    from torpor_hub.processes import layering

    variables = layering.variables(ROOT, Path(os.environ["HOME"]), layering.here(), os.environ)
    said = output(PYTHON, "-I", "-c", textwrap.dedent(program), code, environment=variables)
    return said.splitlines()[0]


def write_wheel(folder: Path) -> Path:
    """Return a wheel of one module, written by hand so that nothing is asked of an index."""
    info = f"{PROBE}-1.0.dist-info"
    files = {
        f"{PROBE}.py": "VALUE = 1\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PROBE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: verify\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    wheel = folder / f"{PROBE}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel


def a_job_of_every_kind(labels: dict[str, str]) -> str:
    """One job of each kind that the label names ends well under the real wrapper."""
    kinds = labels.get("kinds", "").split(",")
    unknown = sorted(set(kinds) - set(KINDS))
    require(not unknown, f"The label names kinds that are not known here: {', '.join(unknown)}.")
    return ", ".join(f"{kind}: {KINDS[kind]()}" for kind in kinds)


def command_job() -> str:
    """Run a command on the environment's interpreter; return what it printed."""
    program = "import sys; print(sys.executable)"
    log = run_job({"type": "command", "argv": ["python", "-c", program]}, "command").log(ATTEMPT).strip()
    require(log == f"{ENV}/bin/python", f"The command ran on {log}.")
    return log


def spark_job() -> str:
    """Run a function with Spark's workers on the environment's interpreter; return what it found."""
    api = run_job(*function_code(), "spark", bundle=bundle())
    content = pickle.loads(api.results[ATTEMPT])  # noqa: S301 - our own
    value = content.get("value")
    require(value and value["sum"] == 4950 and value["master"] == "local[1]", f"The job returned {content}.")
    require(value["python"] == [f"{ENV}/bin/python"], f"Spark's workers run on {value['python']}.")
    return f"Spark {value['version']} as {value['master']}"


KINDS: dict[str, Callable[[], str]] = {"command": command_job, "spark": spark_job}


def function_code() -> tuple[dict[str, Any]]:
    """Return what the api says of a submitted function."""
    import cloudpickle

    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    return ({"type": "function", "name": "main", "python": minor, "cloudpickle": cloudpickle.__version__},)


def bundle() -> bytes:
    """Return the bundle of a function of a notebook in this environment."""
    program = """
        import sys
        import cloudpickle
        def interpreter(row):
            import sys
            return sys.executable
        def main(spark=None):
            rows = spark.range(100)
            return {
                "sum": rows.groupBy().sum("id").first()[0],
                "python": rows.rdd.map(interpreter).distinct().collect(),
                "master": spark.sparkContext.master,
                "version": spark.version,
            }
        sys.stdout.buffer.write(cloudpickle.dumps({"function": main, "args": (), "kwargs": {}}, protocol=5))
    """
    return subprocess.run([ENV / "bin/python", "-c", textwrap.dedent(program)], check=True, capture_output=True).stdout


def run_job(code: dict[str, Any], kind: str, **more: Any) -> JobApi:
    """Run one attempt by the image's entry point; return the stand-in for the api that it reported to.

    Raises:
        Wrong: when it does not end well; the text has its log.
    """
    api = JobApi()
    api.add(ATTEMPT, code, kind=kind, amount=AMOUNT, name="verify", **more)
    with tempfile.TemporaryDirectory() as folder:
        told = {"TORPOR_URL": api.url, "TORPOR_JOB": "job-verify", "TORPOR_ATTEMPT": ATTEMPT, "TORPOR_JOB_TOKEN": TOKEN}
        ended = subprocess.run(
            [*ENTRY, "job"],
            env={**os.environ, **told, "TORPOR_FOLDER": folder},
            timeout=JOB_S,
            capture_output=True,
            check=False,
        )
    api.stop()
    exit_code = api.exits.get(ATTEMPT, {}).get("exit_code")
    if ended.returncode or exit_code != 0:
        raise Wrong(f"The {kind} job ended with {json.dumps(api.exits)}: {ended.stderr.decode()} {api.log(ATTEMPT)}")
    return api
