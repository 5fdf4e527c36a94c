"""The command ``torpor``: a thin layer over the SDK. Data goes to stdout, everything else to stderr.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 not signed in, 5 forbidden, 6 conflict, 7 timeout or unavailable, 130 interrupted.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        from torpor.cli import plugins
        from torpor.cli.root import application
    except ImportError as error:
        if error.name is None or not error.name.startswith(("typer", "rich", "yaml")):
            raise
        sys.exit(f"The command line needs {error.name}, which is not here. Install it with: pip install 'torpor[cli]'")
    app = application()
    plugins.load(app, sys.argv[1:], plugins.registered)
    app(prog_name="torpor")
