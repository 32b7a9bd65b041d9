"""Where a machine keeps cuBLAS, which the peer links with and which is too large to be carried."""

import glob
import os
import subprocess
import sys

NAME = "libcublas.so.13"
PLACES = [
    "{peer}/../cublas/nvidia/cu13/lib",  # what tools/bench/peer/build installs
    "/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib", "/opt/cuda*/lib64",
    "{site}/nvidia/cu13/lib", "{site}/nvidia/cublas/lib",
    "/opt/*/.venv/lib/python3*/site-packages/nvidia/cu13/lib", "/opt/*/lib/python3*/site-packages/nvidia/cu13/lib",
]


def environment(peer):
    """Variables that the peer's programs need: they find each other, and cuBLAS, by LD_LIBRARY_PATH."""
    folders = [str(peer), *cublas(peer), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {"LD_LIBRARY_PATH": ":".join(folders)}


def cublas(peer):
    """Folders with cuBLAS; none where the loader finds it by itself, or there is none."""
    try:
        if NAME in subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, timeout=10).stdout:
            return []
    except OSError:
        pass
    for place in PLACES:
        for site in sys.path or [""]:
            found = sorted(glob.glob(os.path.join(place.format(peer=peer, site=site), NAME)))
            if found:
                return [os.path.dirname(found[-1])]
    return []
