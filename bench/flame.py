"""Where the time of a call and of a stream goes: flame graphs by py-spy, and the functions that take most."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from bench.ours import ALL_ON
from bench.system import Target, running
from bench.table import markdown
from bench.upstream import Missing, Rig

RATE_HZ = 400
SECONDS = 8
MOST = 20
PACED = {"rounds": 5, "chunks": 200, "delay_us": 20_000, "spread_us": 1_000_000, "limit_s": SECONDS * 2 + 6}


def record_flames(rig: Rig, folder: Path) -> str:
    """`flame-call.svg` and `flame-stream.svg` into *folder*; gives the tables of the functions that take most."""
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        raise Missing("py-spy is not installed: pip install py-spy")
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    with running(rig, ALL_ON.system("llmproxy")) as target:
        target.calls(32, 2)
        calls = threading.Thread(target=target.calls, args=(32, SECONDS * 2 + 6))
        said.append(_record(program, target, calls, folder / "flame-call.svg", "calls, 32 connections"))
        streams = threading.Thread(target=target.streams, args=(200,), kwargs=PACED)
        said.append(
            _record(program, target, streams, folder / "flame-stream.svg", "200 streams, 50 events a second each")
        )
    return "\n\n".join(said)


def _record(program: str, target: Target, load: threading.Thread, picture: Path, title: str) -> str:
    """Twice the same load: the picture, then the samples that it would be drawn from."""
    samples = target.rig.folder / "samples.txt"
    load.start()
    for kind, file in (("flamegraph", picture), ("raw", samples)):
        command = [program, "record", "--pid", str(target.pid), "--rate", str(RATE_HZ), "--duration", str(SECONDS)]
        command += ["--format", kind, "--output", str(file), "--function"]
        pinned = ["taskset", "-c", str(target.rig.cores.load), *command]
        subprocess.run(pinned, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    load.join()
    # As py-spy titles it, with its own command line, it would tell the paths of this machine.
    picture.write_text(re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{title}", picture.read_text()))
    return f"{title}\n\n{top(samples.read_text())}"


def top(samples: str) -> str:
    """The functions that took most time themselves, of lines `frame;frame COUNT`; C belongs to its Python caller."""
    own, total = Counter[str](), 0
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        if "asyncio/runners.py" in stack:  # threads that wait for work are none
            own[stack.rpartition(";")[2].partition(":")[0].removesuffix(")") + ")"] += int(count)
            total += int(count)
    rows = [[f"`{frame}`", f"{count / total * 100:.1f} %"] for frame, count in own.most_common(MOST)]
    return markdown(["function", "of the time"], rows)
