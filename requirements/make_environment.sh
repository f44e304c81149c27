#!/bin/sh
# usage: make_environment.sh PYTHON FOLDER   makes a virtual environment, with Debian's python3-venv when it is missing
set -eu
python=$1 folder=$2
command -v "$python" >/dev/null ||
    { echo "there is no $python here; on Debian: apt-get install python3.11 python3.11-venv" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    { echo "$python is $("$python" --version 2>&1); expected Python 3.11: make PYTHON=/path/to/python3.11" >&2; exit 1; }
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # The environments are made side by side; the lock lets one of them install.
        flock requirements sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends python3.11-venv' >/dev/null
    else
        echo "$python has no venv module; on Debian: apt-get install python3.11-venv" >&2
        exit 1
    fi
fi
"$python" -m venv --clear "$folder"
