"""What a child process may know: no secret of its parent, and no way to a hub."""

from __future__ import annotations

import os

PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "GOMP_CPU_AFFINITY", "KMP_AFFINITY",
    "KMP_BLOCKTIME",
)  # fmt: skip


def child_environment(**own: str) -> dict[str, str]:
    """Variables of the system and of the numeric libraries, and the child's own."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | own
