"""Run one attempt of a job, as the environment variables say."""

from __future__ import annotations

import sys

from torpor.run.wrapper import main

if __name__ == "__main__":
    sys.exit(main())
