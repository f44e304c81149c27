#!/bin/sh
# Installs what the emulated board takes, where it is missing and we may, and lets this kernel run arm64 programs.
set -eu
command -v apt-get >/dev/null || { echo "no apt-get here; see docs/board.md for what the board takes" >&2; exit 1; }
if [ "$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else
    echo "not permitted to install packages; see docs/board.md for what the board takes" >&2
    exit 1
fi
missing=
for pair in qemu-system-aarch64:qemu-system-arm qemu-img:qemu-utils qemu-aarch64-static:qemu-user-static \
    mmdebstrap:mmdebstrap arch-test:arch-test cpio:cpio depmod:kmod mke2fs:e2fsprogs ssh:openssh-client; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
# What stands in for root where an image is built without it.
[ "$(id -u)" = 0 ] || command -v newuidmap >/dev/null || missing="$missing uidmap"
handler=/proc/sys/fs/binfmt_misc/qemu-aarch64
[ -e $handler ] || [ "$(uname -m)" = aarch64 ] || missing="$missing binfmt-support"
if [ -n "$missing" ]; then
    echo "installing for the emulated board:$missing"
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get update -qq
    # shellcheck disable=SC2086  a list of package names
    $sudo apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends $missing >/dev/null
fi
# Without systemd nobody has told the kernel yet.
[ -e $handler ] || [ "$(uname -m)" = aarch64 ] || $sudo update-binfmts --enable qemu-aarch64
