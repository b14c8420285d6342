"""All that only a GPU can show, in one call: `just gpu-check [CHECKOUT_OF_NUNIF]`.

The tests that are marked `gpu`, a trial of the hardware encoders, and with a checkout B2 on the GPU. Where no GPU
answers, that is all that is said, with what was found instead, and the exit status is 2: nothing was checked.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from stereospot.media import encoders

NOTHING_CHECKED = 2
ROOT = Path(__file__).resolve().parents[1]


def answering() -> str | None:
    """The GPU that answers, in words; None, and on stdout why, where none does."""
    try:
        torch: Any = importlib.import_module("torch")
        importlib.import_module("transformers")
    except ImportError as failure:
        print(f"NO GPU WAS CHECKED: {failure}. Run: uv sync --extra gpu")
        return None
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs only"
        driver = "nvidia-smi is there" if shutil.which("nvidia-smi") else "there is no nvidia-smi"
        print(f"NO GPU WAS CHECKED: none answers torch {torch.__version__} (built {built}; {driver}).")
        return None
    found = torch.cuda.get_device_properties(0)
    number = f"{torch.cuda.device_count()} in all" if torch.cuda.device_count() > 1 else "the only one"
    version = f"torch {torch.__version__}, CUDA {torch.version.cuda}, compute {found.major}.{found.minor}"
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, {number}; {version}"


def main() -> int:
    """Check it all; the first step that fails decides the exit status, the others run all the same."""
    name = answering()
    if name is None:
        return NOTHING_CHECKED
    print(f"GPU: {name}")
    for codec in sorted(encoders.HARDWARE):
        print(f"{codec}: {'encodes' if encoders.usable(codec) else 'not on this GPU'}", flush=True)
    steps = [["-m", "pytest", "-o", "addopts=--strict-markers", "-m", "gpu", "-rs", "-q", "tests"]]
    if len(sys.argv) > 1:
        steps.append(["bench/vs_iw3.py", *sys.argv[1:], "--device", "cuda", "--seconds", "20"])
    else:
        print("B2 is left out: name a checkout of nunif (docs/models.md says which), `just gpu-check CHECKOUT`.")
    status = 0
    for step in steps:
        environment = {**os.environ, "STEREOSPOT_DEVICE": "cuda"}
        status = subprocess.run([sys.executable, *step], cwd=ROOT, env=environment).returncode or status
    print("GPU CHECK: " + ("passed" if status == 0 else f"FAILED ({status})"))
    return status


if __name__ == "__main__":
    sys.exit(main())
