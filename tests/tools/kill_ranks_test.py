"""Kills ranks of a training run at any moment, while they write a checkpoint too, again and again: every start goes on from the newest
checkpoint, nothing before it is lost, none is ever damaged, and what comes out is, bit for bit, what a run without a break gives.

    python kill_ranks_test.py BIN [KILLS [SEED]]
"""
import json
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time

import small_run

RANKS = 3


def children(process):
    try:
        return [int(pid) for pid in pathlib.Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def runs(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def checkpoints(output):
    """The steps that have a checkpoint; each must be whole."""
    steps = []
    for folder in output.glob("step_*"):
        try:
            files = json.loads((folder / "manifest.json").read_text())["files"]
            for name, file in files.items():
                assert (folder / name).stat().st_size == file["size"], f"{folder / name} is cut short"
            assert set(files) == {path.name for path in folder.iterdir()} - {"manifest.json"}, f"{folder} has other files"
            for name in ("model.safetensors", "optimizer.safetensors"):
                data = (folder / name).read_bytes()
                size = struct.unpack("<Q", data[:8])[0]
                header = json.loads(data[8:8 + size])
                end = max(entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__")
                assert 8 + size + end == len(data), f"{folder / name} is cut short"
            assert json.loads((folder / "trainer_state.json").read_text())["ranks"] == RANKS
        except FileNotFoundError:
            if folder.exists():  # else the run under way has removed it
                raise
            continue
        steps.append(int(folder.name[5:]))
    return sorted(steps)


def is_saving(output):
    return any(output.glob(".step_*.tmp-*"))


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve() / "blt_train")
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    choose = random.Random(seed)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        config, output, log = small_run.write(folder), folder / "out", folder / "log"

        def start(*arguments):
            command = [program, str(config), "--nproc", str(RANKS), *arguments]
            return subprocess.Popen(command, stderr=log.open("w"), stdout=subprocess.DEVNULL, env=environment)

        last, said, in_saves, in_starts = 0, {}, 0, 0
        for number in range(kills):
            launcher = start(f"output={output}", "--resume", "auto")

            def has_saved():
                assert launcher.poll() is None, f"kill {number}: it ended by itself: {log.read_text()}"
                return max(checkpoints(output), default=0) > last

            early = last > 0 and choose.random() < 0.2  # while ranks meet, tidy up and load, too
            if early:
                small_run.wait_for(lambda: len(children(launcher.pid)) == RANKS, 60, "all ranks", log)
                time.sleep(choose.uniform(0, 2))
            else:
                small_run.wait_for(has_saved, 120, "a new checkpoint", log)
                if choose.random() < 0.5:
                    time.sleep(choose.uniform(0, 0.2))  # at any moment
                else:
                    while not is_saving(output):
                        time.sleep(0.001)
                    time.sleep(choose.uniform(0, 0.03))
            said_at_start = log.read_text()
            assert "damaged" not in said_at_start, said_at_start
            assert early or last == 0 or f"going on from {output}/step_{last:08}" in said_at_start, said_at_start
            in_starts += early
            ranks = children(launcher.pid)
            assert len(ranks) == RANKS, ranks
            there = max(checkpoints(output))
            victim = choose.choice(["one", "one", "launcher", "all"])
            said[victim] = said.get(victim, 0) + 1
            in_saves += is_saving(output)
            for pid in {"one": [choose.choice(ranks)], "launcher": [launcher.pid], "all": [*ranks, launcher.pid]}[victim]:
                os.kill(pid, signal.SIGKILL)
            code = launcher.wait(timeout=60)
            small_run.wait_for(lambda: not any(runs(pid) for pid in ranks), 60, "the end of all ranks", log)
            if victim == "one":
                assert code == 1, f"exit code {code}: {log.read_text()}"
                errors = [line for line in log.read_text().splitlines() if line.startswith("blt_train: ")]
                assert len(errors) == 1 and "was killed by signal 9" in errors[0], log.read_text()
            steps = checkpoints(output)
            assert steps and steps[-1] >= there, f"kill {number}: {there} was there, and now {steps}"
            last = steps[-1]
        end = last + 2
        for target, arguments in ((output, ["--resume", "auto"]), (folder / "whole", [])):
            process = start(f"output={target}", f"train.steps={end}", *arguments)
            assert process.wait(timeout=300) == 0, log.read_text()
        for file in ("model.safetensors", "optimizer.safetensors", "trainer_state.json"):
            a, b = ((run / f"step_{end:08}" / file).read_bytes() for run in (output, folder / "whole"))
            assert a == b, f"{file} is not that of a run without a break"
        print(f"{kills} kills ({said}; {in_saves} while a checkpoint was written, {in_starts} within 2 s of a start), {end} steps: bit for bit those of a run without a break (seed {seed})")


main()
