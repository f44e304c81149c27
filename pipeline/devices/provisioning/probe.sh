# What a board is, as lines of key=value. It goes to the board's sh as it stands, with no data in it.
# POSIX, as dash and busybox have it. A function, since the shell reads this text from the very standard input that
# the programs below must not eat.

say() { printf '%s=%s\n' "$1" "$2"; }
has() { command -v "$1" >/dev/null 2>&1; }

free() {
    # The fourth word of the last line is what is available, in KiB.
    # shellcheck disable=SC2046
    set -- "$1" $(df -Pk "$2" 2>/dev/null | sed -n '$p')
    if [ -n "${5:-}" ]; then say "$1_free_kib" "$5"; fi
}

installed() {
    if [ -d "$2/releases" ] || [ -f "$2/service.json" ]; then say "$1_begun" yes; fi
    if [ -f "$2/service.json" ]; then say "$1_service" "$(sed -n 1p "$2/service.json")"; fi
    (
        cd -P "$2/current" 2>/dev/null || exit 0
        release=$(pwd -P)
        say "$1_release" "${release##*/}"
        for runtime in runtimes/*; do say "$1_runtime" "${runtime##*/}"; done
    )
}

# shellcheck disable=SC2016
look='
import os, struct, sys
from importlib.util import find_spec
needed = """_ctypes argparse array ast base64 binascii bisect calendar contextlib contextvars copy csv ctypes
dataclasses datetime decimal dis email enum fcntl fnmatch fractions functools gettext glob grp gzip
hashlib hmac inspect ipaddress json keyword locale math numbers opcode pathlib pickle pkgutil platform pwd
quopri random resource secrets select selectors shutil signal socket statistics string struct subprocess
tarfile tempfile textwrap threading token tokenize typing urllib warnings weakref zipfile zlib"""
missing = [name for name in needed.split() if name not in sys.builtin_module_names and find_spec(name) is None]
path = os.path.realpath(sys.executable)
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
except Exception:
    libc = "-"
try:
    from importlib.metadata import version
    numpy = version("numpy")
except Exception:
    numpy = "-"
above = os.path.dirname(os.path.dirname(path))
if not os.path.exists(os.path.join(above, "pyvenv.cfg")):
    kind = sys.implementation.name + getattr(sys, "abiflags", "")
    bits = struct.calcsize("P") * 8
    print("python=%d.%d.%d %s %d %s %s %s %s" % (
        sys.version_info[:3] + (kind, bits, libc, numpy, ",".join(missing) or "-", path)))
'

pythons() {
    places="$PATH:/usr/local/bin:/usr/bin:/opt/*/bin:$HOME/.local/bin:$HOME/.pyenv/versions/*/bin:$HOME/*conda*/bin:$HOME/*forge*/bin"
    seen=
    IFS=:
    for folder in $places; do
        for python in "$folder"/python3 "$folder"/python3.[0-9] "$folder"/python3.[0-9][0-9]; do
            if [ -f "$python" ] && [ -x "$python" ]; then
                real=$(readlink -f "$python" 2>/dev/null || echo "$python")
                case "$seen:" in *":$real:"*) continue ;; esac
                seen="$seen:$real"
                # By its own name: by that of a virtual environment, the packages of that would be seen.
                "$real" -I -c "$look" 2>/dev/null
            fi
        done
    done
    unset IFS
}

probe() {
    LC_ALL=C
    export LC_ALL
    say probe 1
    say machine "$(uname -m)"
    say os "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null | tr -d '"')"
    say model "$(tr -d '\000' 2>/dev/null </proc/device-tree/model)"
    say user "$(id -un)"
    say home "$HOME"
    if [ "$(id -u)" = 0 ]; then say sudo root
    elif ! has sudo; then say sudo no
    elif sudo -n true 2>/dev/null; then say sudo yes
    else say sudo password; fi
    if [ -d /run/systemd/system ] && has systemctl; then
        say systemd "$(systemctl --version 2>/dev/null | sed -n 's/^systemd \([0-9]*\).*/\1/p')"
    fi
    free user "$HOME"
    if [ -d /opt ]; then free system /opt; else free system /; fi
    installed user "$HOME/.local/share/edgepress"
    installed system /opt/edgepress
    # An installer that comes to its end removes what was sent.
    if [ -d "$HOME/.local/share/edgepress/incoming" ]; then say incoming yes; fi
    pythons
    say done 1
}

probe </dev/null
