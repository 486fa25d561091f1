"""Kills processes while they write the entropy cache, and checks that what they left never changes a patch.

    python kill_entropies_test.py BIN_DIR [KILLS]

A round starts one or two writers, waits until each has written its first record, then kills them at a random moment of what would be
left to write. Every few rounds a copy of the cache is read, so that reading does not complete what the next writers find.
"""
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HEADER = 16  # bytes of a file of the cache before its first record
ROUNDS_A_CHECK = 5

CONFIG = """
output: out
data:
  sources: [{paths: [train.jsonl]}]
  sequence_bytes: 256
  batch_bytes: 300000
  entropy_batch_bytes: 1024
  threads: 2
entropy_model:
  kind: train
  model: {dim: 32, layers: 2, heads: 2, window: 64}
  train: {steps: 1}
patching: {rule: {kind: entropy, mean_patch_bytes: 4}}
model:
  local_dim: 16
  ngram: {sizes: [3], rows: 100}
  local_encoder: {layers: 1, heads: 2}
  latent_transformer: {dim: 32, layers: 1, heads: 2}
  local_decoder: {layers: 1, heads: 2}
"""


def written(folder):
    """Files of the cache that have a record, and the bytes of all."""
    sizes = [file.stat().st_size for file in pathlib.Path(folder).glob("*.entropies")]
    return sum(size > HEADER for size in sizes), sum(sizes)


def wait_for_records(folder, files, processes):
    while written(folder)[0] < files and any(process.poll() is None for process in processes):
        time.sleep(0.001)


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="blt_kill_") as folder:
        os.chdir(folder)
        words = ["patch", "byte", "entropy", "and", "the", "of", "a"]
        with open("train.jsonl", "w") as file:
            for _ in range(1200):
                file.write('{"text": "%s"}\n' % " ".join(rng.choice(words) + str(rng.randrange(100)) for _ in range(rng.randrange(1, 50))))
        pathlib.Path("run.yaml").write_text(CONFIG)

        def tool(name, *arguments):
            return [str(binaries / name), *arguments]

        def fill(cache):
            return subprocess.Popen(tool("blt_data", "entropies", "run.yaml", "--model", "out/entropy_model/latest",
                                         f"data.entropy_cache.folder={cache}"), stderr=subprocess.DEVNULL)

        def patches(cache):
            """Every patch of the first 300,000 bytes of training text, and the warnings."""
            command = tool("blt_data", "inspect", "run.yaml", "--model", "out/entropy_model/latest", cache)
            result = subprocess.run(command, capture_output=True, check=True)
            return result.stdout, result.stderr

        subprocess.run(tool("blt_train", "run.yaml", "model=null"), check=True, capture_output=True)
        expected, _ = patches("data.entropy_cache.mib=0")
        assert expected.count(b"|") > 10000, "the model should cut something"

        whole = fill("whole")
        wait_for_records("whole", 1, [whole])
        start = time.monotonic()
        assert whole.wait() == 0
        duration = time.monotonic() - start  # from the first record to the last
        _, whole_bytes = written("whole")

        cache = pathlib.Path("cache")
        cache.mkdir()
        while_writing = 0
        for kill in range(kills):
            files, bytes_there = written(cache)
            processes = [fill(cache) for _ in range(1 + kill % 2)]
            wait_for_records(cache, files + len(processes), processes)
            # Writers share the work, and a machine may be faster now than when `duration` was taken.
            left = duration * max(0.0, 1 - bytes_there / whole_bytes) / len(processes)
            time.sleep(rng.random() * 0.7 * left)
            before = written(cache)[1]
            for process in processes:
                process.send_signal(signal.SIGKILL)
            killed = [process.wait() == -signal.SIGKILL for process in processes]
            while_writing += all(killed) and before > bytes_there
            if kill % ROUNDS_A_CHECK != ROUNDS_A_CHECK - 1 and kill != kills - 1:
                continue
            shutil.copytree(cache, "copy")
            found, warnings = patches("data.entropy_cache.folder=copy")
            assert found == expected, f"after {kill + 1} kills, patches are others"
            assert b"damaged" not in warnings, warnings
            shutil.rmtree("copy")
            for file in cache.glob("*.entropies"):  # so that there is something to write again
                if rng.random() < 0.6:
                    file.unlink()
                    file.with_suffix(".index").unlink(missing_ok=True)
        assert while_writing > kills // 3, f"only {while_writing} of {kills} rounds killed all their processes while they wrote"
        print(f"{kills} rounds, in {while_writing} of them every process was killed while it wrote; every patch as without a cache")


main()
