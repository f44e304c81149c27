"""Constant scripts for the board's own Python, which are given to it on its standard input, and what they print."""

from __future__ import annotations

# Waits until the agent answers and systemd has it for running, which nobody has told it but the board itself: an agent
# that a host has started when it came is no part of a unit.
AWAIT_AGENT = """
import os, subprocess, sys, time
os.environ.setdefault("XDG_RUNTIME_DIR", "/run/user/%d" % os.getuid())  # logind may not have been up at the login
scope, *command, deadline_s = sys.argv[1:]
deadline = time.monotonic() + float(deadline_s)
def is_well(command):
    try:
        return subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=float(deadline_s)
        ).returncode == 0
    except subprocess.TimeoutExpired:
        return False
while not (is_well(["systemctl", scope, "is-active", "edgepress-agent"]) and is_well(command)):
    if time.monotonic() > deadline:
        sys.exit("no agent of the board's own answers after %s s" % deadline_s)
    time.sleep(0.5)
"""

# Hashes every blob: a file whose name is not the hash of its content is a wrong one; and how much has come of others.
BLOBS = """
import hashlib, json, pathlib, sys
folder = pathlib.Path(sys.argv[1], "blobs")
found, begun = list(folder.glob("[0-9a-f]*")), folder.glob(".part-*")
wrong = [path.name for path in found if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]
whole_bytes, begun_bytes = (sum(path.stat().st_size for path in paths) for paths in (found, begun))
print(json.dumps({"blobs": len(found), "wrong": wrong, "bytes": whole_bytes, "begun_bytes": begun_bytes}))
"""

# The state of every job that is on the disk, and which of them cannot be read.
JOBS = """
import json, pathlib, sys
states = {}
for folder in pathlib.Path(sys.argv[1], "jobs").glob("[0-9a-f]*"):
    try:
        json.loads((folder / "spec.json").read_text())
        states[folder.name] = json.loads((folder / "state.json").read_text())["state"]
    except (OSError, ValueError, KeyError) as error:
        states[folder.name] = "broken: %s" % error
print(json.dumps(states))
"""

# A digest of every release that has its name, of the environments that it links to as well; without the .pyc files,
# which have times in them.
RELEASES = """
import hashlib, json, os, pathlib, sys
root = pathlib.Path(sys.argv[1])
def digest(folder):
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        kind = "link " + os.readlink(path) if path.is_symlink() else "folder" if path.is_dir() else "file"
        total.update(("%s %s\\n" % (path.relative_to(folder), kind)).encode())
        if kind == "file":
            total.update(hashlib.sha256(path.read_bytes()).digest())
        elif path.is_symlink() and path.parent.name == "runtimes":
            total.update(digest(path.resolve()).encode())
    return total.hexdigest()
def target(link):
    try:
        return pathlib.Path(os.readlink(root / link)).name
    except OSError:
        return None
folders = [path for path in (root / "releases").glob("[0-9a-f]*") if path.is_dir()] if root.is_dir() else []
print(json.dumps({"current": target("current"), "releases": {path.name: digest(path) for path in folders}}))
"""

# All that is there, by name, where an installation could leave something: files, users and groups, processes.
LEFTOVERS = """
import grp, json, os, pathlib, pwd
found = ["user " + user.pw_name for user in pwd.getpwall()] + ["group " + group.gr_name for group in grp.getgrall()]
for top in ("/etc", "/home", "/opt", "/usr/local", "/var/lib", "/var/spool", "/root", "/srv"):
    for folder, folders, files in os.walk(top):
        found += [os.path.join(folder, name) for name in folders + files]
for top in ("/tmp", "/run", "/run/user/1000", "/var/tmp"):
    found += [str(path) for path in pathlib.Path(top).glob("*edgepress*")]
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        words = path.read_bytes().split(b"\\0")
    except OSError:
        continue
    if any(b"edgepress-agent" in word for word in words):
        found.append("process " + b" ".join(words).decode(errors="replace"))
print(json.dumps(sorted(found)))
"""

# The SHA-256 of what a runtime answers to images, byte by byte, with its default kernels or with its reference kernels.
OUTPUTS = """
import hashlib, sys
import numpy as np
from device_agent import runtimes
from device_agent.runtimes._interpreter import InterpreterModel
name, kernels, model_path, images_path = sys.argv[1:]
if kernels == "reference":
    from tflite_runtime.interpreter import Interpreter, OpResolverType
    interpreter = Interpreter(model_path, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    model = InterpreterModel(interpreter, len(interpreter._get_ops_details()))
else:
    model = runtimes.find(name).open_model(model_path, 1, "xnnpack", 1)
tensor = model.inputs[0]
total = hashlib.sha256()
for image in np.load(images_path):
    real = image.astype(np.float32)[None] / 255
    if tensor.dtype == "int8":
        real = np.clip(np.round(real / tensor.scale) + tensor.zero_point, -128, 127)
    model.set_input(0, real.astype(tensor.dtype))
    model.invoke()
    total.update(np.ascontiguousarray(model.get_output(0)).tobytes())
print(total.hexdigest())
"""
