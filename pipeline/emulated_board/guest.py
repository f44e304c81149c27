"""What is written into the board's file system: a Raspberry Pi OS Lite after its first start, and nothing of edgepress.

A user ``pi`` with sudo, an OpenSSH server that takes keys alone, a fixed address, and Debian's own python3, without pip
and without ensurepip.
"""

from __future__ import annotations

SUITE = "bookworm"
USER, USER_ID = "pi", 1000
ADDRESS = "10.0.2.15"

# libpam-systemd, dbus-user-session and polkitd: services of a user that outlive the login, as on Raspberry Pi OS.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "dbus-user-session",
    "iproute2",
    "kmod",
    "libpam-systemd",
    "openssh-server",
    "polkitd",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
KERNEL_PACKAGES = ("linux-image-arm64", "busybox-static")

# Documents and translations: half of the files, and of no use here.
UNWANTED = ("/usr/share/doc/*", "/usr/share/i18n/*", "/usr/share/locale/*", "/usr/share/man/*")

FILES = {
    "etc/fstab": "/dev/root / ext4 defaults,noatime 0 0\n",
    "etc/hostname": "emulated-pi\n",
    "etc/hosts": "127.0.0.1 localhost emulated-pi\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/resolv.conf": "",
    "etc/ssh/sshd_config.d/edgepress.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication no\nPermitRootLogin no\nUseDNS no\n"
        "PrintLastLog no\nMaxStartups 100\n"
    ),
    "etc/sudoers.d/pi": "pi ALL=(ALL) NOPASSWD: ALL\n",
    "etc/systemd/network/10-all.network": f"[Match]\nName=e* usb* wlan*\n[Network]\nAddress={ADDRESS}/24\n",
}

# Appended to what Debian has there.
ACCOUNTS = {
    "etc/passwd": f"{USER}:x:{USER_ID}:{USER_ID}:,,,:/home/{USER}:/bin/bash\n",
    "etc/group": f"{USER}:x:{USER_ID}:\n",
    "etc/shadow": f"{USER}:*:19000:0:99999:7:::\n",
    "etc/gshadow": f"{USER}:!::\n",
}
GROUPS = ("video", "sudo")

# The target that wants it, and the unit.
ENABLED = (
    ("multi-user.target", "systemd-networkd.service"),
    ("sockets.target", "systemd-networkd.socket"),
    ("multi-user.target", "ssh.service"),
)
# They only cost time where every instruction is emulated.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
)

# Of the kernel's modules those that a board needs: its devices, and the faults of a network (netem).
MODULES = (
    "kernel/crypto",
    "kernel/drivers/char/hw_random",
    "kernel/drivers/cpufreq",
    "kernel/drivers/hwmon",
    "kernel/drivers/net/usb",
    "kernel/drivers/thermal",
    "kernel/drivers/virtio",
    "kernel/lib",
    "kernel/net/sched",
)
