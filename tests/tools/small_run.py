"""A run of several ranks that goes on until it is ended, and waiting for what becomes of it: what the scripts beside this one share."""
import time

CONFIG = """
data:
  sources: [{paths: [train.txt]}]
  sequence_bytes: 128
  batch_bytes: 256
  shuffle_sequences: 8
  threads: 1
patching: {rule: {kind: space}}
model:
  local_dim: 16
  window: 32
  ngram: {sizes: [3, 4], rows: 5000}
  local_encoder: {layers: 1, heads: 2, ffn_dim: 32, dropout: 0.1}
  latent_transformer: {dim: 32, layers: 1, heads: 2, ffn_dim: 64}
  local_decoder: {layers: 1, heads: 2, ffn_dim: 32}
train: {steps: 1000000, checkpoint_every: 3, keep_checkpoints: 2, schedule: {kind: constant}}
parallel: {sharding: zero3, tables: sharded, bucket_mib: 0.01, timeout_s: 60}
"""


def write(folder):
    """Its text and its config, into a folder. Gives the config's path."""
    (folder / "train.txt").write_text("".join(f"line {i * 7919 % 1000} of the text\n" for i in range(2000)))
    config = folder / "run.yaml"
    config.write_text(CONFIG)
    return config


def wait_for(get, seconds, what, log):
    """What get() gives as soon as that is something; fails after so many seconds, with what the file `log` says."""
    end = time.monotonic() + seconds
    while not (value := get()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s\n{log.read_text()}"
        time.sleep(0.02)
    return value
