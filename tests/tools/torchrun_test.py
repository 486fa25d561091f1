"""The real torchrun: a rank that is killed is started anew with the others, and goes on from the newest checkpoint.

    python torchrun_test.py BIN
"""
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import small_run

RANKS, KILLS = 2, 2


def ranks_of(program, config):
    """The ranks of this test that run: {rank: (process number, how often torchrun had started them anew)}."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "exe").resolve() == program and str(config) in (folder / "cmdline").read_text().split("\0"):
                variables = dict(part.split("=", 1) for part in (folder / "environ").read_text().split("\0") if "=" in part)
                found[int(variables["RANK"])] = int(folder.name), int(variables["TORCHELASTIC_RESTART_COUNT"])
        except (OSError, KeyError, ValueError):
            continue
    return found


def main():
    program = (pathlib.Path(sys.argv[1]) / "blt_train").resolve()
    if importlib.util.find_spec("torch") is None:
        print("skipped: this Python has no torch")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config, output, log = small_run.write(folder), folder / "out", folder / "log"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS), "--max-restarts", str(KILLS),
                   "--monitor-interval", "0.2", "--no-python", str(program), str(config), f"output={output}", "--resume", "auto"]
        agent = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, env=dict(os.environ, OMP_NUM_THREADS="1"))
        steps = lambda: max((int(path.name[5:]) for path in output.glob("step_*")), default=0)
        try:
            for start in range(KILLS + 1):
                ranks = small_run.wait_for(lambda: (found := ranks_of(program, config)) and len(found) == RANKS and
                                           all(count == start for _, count in found.values()) and found, 120, f"ranks of start {start}", log)
                small_run.wait_for(lambda: log.read_text().count("going on from") == start, 120, f"start {start} to go on", log)
                reached = steps()  # by now: what an earlier start saved while it was being ended is among them
                small_run.wait_for(lambda: steps() > reached, 120, f"a checkpoint of start {start}", log)
                if start < KILLS:
                    os.kill(ranks[start % RANKS][0], signal.SIGKILL)
            assert agent.poll() is None, log.read_text()
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(60)
    print(f"{KILLS} starts after a kill, behind step {reached}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
