"""Kills processes that write the entropy cache, at random moments, and checks that what they left never changes a patch.

    python kill_entropies_test.py BIN_DIR [KILLS]
"""
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

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


def main():
    binaries = pathlib.Path(sys.argv[1])
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

        def patches(cache):
            """Every patch of the first 300,000 bytes of training text."""
            command = tool("blt_data", "inspect", "run.yaml", "--model", "out/entropy_model/latest", *cache)
            result = subprocess.run(command, capture_output=True, check=True)
            return result.stdout, result.stderr

        subprocess.run(tool("blt_train", "run.yaml", "model=null"), check=True, capture_output=True)
        fill = tool("blt_data", "entropies", "run.yaml", "--model", "out/entropy_model/latest", "data.entropy_cache.folder=cache")
        expected, _ = patches(["data.entropy_cache.mib=0"])
        assert expected.count(b"|") > 10000, "the model should cut something"

        start = time.monotonic()
        whole = tool("blt_data", "entropies", "run.yaml", "--model", "out/entropy_model/latest", "data.entropy_cache.folder=whole")
        subprocess.run(whole, check=True, capture_output=True)
        duration = time.monotonic() - start
        killed = 0
        for kill in range(kills):
            processes = [subprocess.Popen(fill, stderr=subprocess.DEVNULL) for _ in range(1 + kill % 2)]
            time.sleep(rng.uniform(0.1, 1.0) * duration)
            for process in processes:
                process.send_signal(signal.SIGKILL)
                killed += process.wait() == -signal.SIGKILL
            if kill % 5 == 4 or kill == kills - 1:
                found, warnings = patches(["data.entropy_cache.folder=cache"])
                assert found == expected, f"after {kill + 1} kills, patches are others"
                assert b"damaged" not in warnings, warnings
            if kill % 20 == 19:  # so that there is something to write again
                for file in pathlib.Path("cache").iterdir():
                    if rng.random() < 0.7:
                        file.unlink()
        assert killed > kills // 3, f"only {killed} processes were killed before they were done"
        assert any(pathlib.Path("cache").glob("*.entropies"))
        print(f"{killed} processes killed, every patch as without a cache")


main()
