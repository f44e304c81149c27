"""``python -m device_agent`` is ``edgepress-agent``."""

import sys

from device_agent.cli import main

sys.exit(main())
