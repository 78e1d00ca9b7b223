"""
Run all tests with branch coverage and hold the core to its share.

The arguments go to pytest. Its closing line is repeated at the end, below the coverage report, so that the
last line of a log tells how many tests passed. The exit status is 0 only if all of it is well.
"""

import os
import subprocess
import sys
from pathlib import Path

CORE_PERCENT = 95
ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> None:
    """Run a Python module in the checkout; end this process with its exit status when that is not 0."""
    status = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def run_pytest(*arguments: str) -> str:
    """Run pytest, show its output as it comes, return its last line; end this process when a test failed."""
    color = "yes" if sys.stdout.isatty() else "no"
    command = [sys.executable, "-m", "pytest", f"--color={color}", "--cov", "--cov-report=", *arguments]
    tail = b""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # By what is there, not by lines: the dots of the progress are the point of showing them.
        while piece := os.read(process.stdout.fileno(), 65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            tail = (tail + piece)[-4096:]
    if process.returncode:
        sys.exit(process.returncode)
    return tail.decode(errors="replace").strip().splitlines()[-1]


def main() -> None:
    run("coverage", "erase")
    closing_line = run_pytest(*sys.argv[1:])
    run("coverage", "report")
    print(f"\nllmproxy_core, of which {CORE_PERCENT} % must be covered:", flush=True)
    run("coverage", "report", "--include=llmproxy_core/*", f"--fail-under={CORE_PERCENT}")
    print(f"\n{closing_line}")


if __name__ == "__main__":
    main()
