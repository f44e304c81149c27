"""The board's own SFTP server, run by the user whom the agent runs as.

The host's own SFTP channel has the rights of whoever logged in, who may not write where another user's agent keeps its
files.
"""

from __future__ import annotations

import os
from typing import NoReturn

from device_agent.errors import AgentError

# Where OpenSSH's server lies on Debian, Fedora, Arch and Alpine.
SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")


def become_server() -> NoReturn:
    """Replace this process by the SFTP server.

    Raises:
        AgentError: if the board has none.
    """
    for server in SERVERS:
        if os.access(server, os.X_OK):
            os.umask(0o077)
            os.execv(server, [server])  # noqa: S606 - a fixed program without arguments
    raise AgentError(f"there is none of {', '.join(SERVERS)} here; install openssh-sftp-server")
