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
import time

CONFIG = """
data:
  sources: [{paths: [train.txt]}]
  sequence_bytes: 128
  batch_bytes: 256
  threads: 1
patching: {rule: {kind: space}}
model:
  local_dim: 16
  window: 32
  ngram: {sizes: [3, 4], rows: 1000}
  local_encoder: {layers: 1, heads: 2, ffn_dim: 32}
  latent_transformer: {dim: 32, layers: 1, heads: 2, ffn_dim: 64}
  local_decoder: {layers: 1, heads: 2, ffn_dim: 32}
train: {steps: 1000000, checkpoint_every: 5, keep_checkpoints: 3, schedule: {kind: constant}}
parallel: {sharding: zero2, timeout_s: 60}
"""
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


def wait_for(get, seconds, what, log):
    end = time.monotonic() + seconds
    while not (value := get()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s\n{log.read_text()}"
        time.sleep(0.05)
    return value


def main():
    program = (pathlib.Path(sys.argv[1]) / "blt_train").resolve()
    if importlib.util.find_spec("torch") is None:
        print("skipped: this Python has no torch")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "train.txt").write_text("".join(f"line {i * 7919 % 1000} of the text\n" for i in range(5000)))
        config, output, log = folder / "run.yaml", folder / "out", folder / "log"
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS), "--max-restarts", str(KILLS),
                   "--monitor-interval", "0.2", "--no-python", str(program), str(config), f"output={output}", "--resume", "auto"]
        agent = subprocess.Popen(command, stdout=log.open("w"), stderr=subprocess.STDOUT, env=dict(os.environ, OMP_NUM_THREADS="1"))
        steps = lambda: max((int(path.name[5:]) for path in output.glob("step_*")), default=0)
        try:
            for start in range(KILLS + 1):
                ranks = wait_for(lambda: (found := ranks_of(program, config)) and len(found) == RANKS and
                                 all(count == start for _, count in found.values()) and found, 120, f"ranks of start {start}", log)
                wait_for(lambda: log.read_text().count("going on from") == start, 120, f"start {start} to go on", log)
                reached = steps()  # by now: what an earlier start saved while it was being ended is among them
                wait_for(lambda: steps() > reached, 120, f"a checkpoint of start {start}", log)
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
