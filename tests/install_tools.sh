#!/bin/sh
# Installs what the tests drive for real, where it is missing and we may: an OpenSSH server, a headless
# Chromium, a library that sets the wall clock of one process, and the small shell of small boards.
set -eu
missing=
[ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
[ -x /usr/bin/chromium ] || missing="$missing chromium"
[ -x /usr/bin/chromedriver ] || missing="$missing chromium-driver"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
command -v busybox >/dev/null || missing="$missing busybox"
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "not installed, and no apt-get here:$missing; the tests that need them will be skipped" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else
    echo "not installed, and not permitted to:$missing; the tests that need them will be skipped" >&2
    exit 0
fi
echo "installing for the tests:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086  a list of package names
$sudo apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends $missing >/dev/null
