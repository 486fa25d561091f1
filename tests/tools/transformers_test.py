"""libblt and transformers give the same numbers with the same directory: python transformers_test.py BIN [NAME...]

BIN holds blt_eval and blt_train; NAME: only the checks whose names contain one of these. Exit status 77: skipped, because this
Python has no transformers that can be compared with.

1. Random models that transformers saves, blt_eval reads: bits per byte within 1e-5, patches equal, logits and entropies within
   2e-5 x max(1, largest).
2. Models that blt_train makes, transformers reads: the same.
3. Models that only libblt can express are refused by transformers.
"""
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, BltConfig, BltForCausalLM, BltModel
    from transformers.models.blt.modeling_blt import BltPatcher
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
if not hasattr(BltConfig, "local_attention_window_len"):
    print(f"skipped: transformers {transformers.__version__} computes BLT without local windows; 5.23 is compared with")
    sys.exit(77)

BOS, BYTE_OFFSET = 1, 4
BIN = pathlib.Path(sys.argv[1])
ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = ("The Byte Latent Transformer groups bytes into patches: a new patch starts where the next byte is hard to predict. "
        "Names such as Zürich, Kraków or Łódź take more bytes than letters, and 3,141.59 is just digits.\n"
        "日本語のテキストも、バイトの列です。Привет, мир! 🙂\tnaïve café — “quotes” …\n").encode()
complaints = []


def expect(holds, what):
    if not holds:
        complaints.append(what)
        print("  FAILED:", what)


def run(program, *arguments):
    done = subprocess.run([str(BIN / program), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


# What each of the two says about a text.


def ids_of(text):
    return torch.tensor([[BOS] + [byte + BYTE_OFFSET for byte in text]])


def bits_per_byte(logits, text):
    log_p = torch.log_softmax(logits[:-1].double(), dim=-1)
    return -log_p.gather(1, ids_of(text)[0, 1:, None]).sum().item() / math.log(2) / len(text)


def of_transformers(model, text):
    """Logits [T, 260], the patcher's entropies [T] (None: it cuts no patches), and the patch of each id [T]."""
    ids, config = ids_of(text), model.config
    with torch.no_grad():
        # transformers 5.23 cannot run with its cache.
        logits = model(input_ids=ids, use_cache=False).logits[0].float()
        if model.model.patcher is None or config.patching_mode != "entropy":
            return logits, None, torch.arange(ids.shape[1])
        entropies, lengths, _ = model.model.patcher(ids, patch_size=config.patch_size, threshold=config.patching_threshold,
                                                    max_patch_length=config.max_patch_length)
        return logits, entropies[0].float(), model.model._patch_ids_from_lengths(lengths, ids.shape[1])[0]


def of_libblt(folder, text, work):
    data, saved = work / "text.txt", work / "logits.safetensors"
    data.write_bytes(text)
    result = json.loads(run("blt_eval", folder, "--data", data, "--json", "--sequence-bytes", 100000, "--save-logits", saved))
    return result, load_file(saved)


def is_near(name, actual, expected):
    expect(actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
    if actual.shape != expected.shape:
        return math.inf
    error, allowed = (actual - expected).abs().max().item(), 2e-5 * max(1.0, expected.abs().max().item())
    expect(error <= allowed, f"{name}: differs by {error:.3g}, allowed are {allowed:.3g}")
    return error


def compare(name, folder, model, text, work):
    """Both on one directory."""
    logits, entropies, patch_ids = of_transformers(model, text)
    result, saved = of_libblt(folder, text, work)
    last = len(logits)
    config = model.config
    if config.max_patch_length is not None and entropies is not None:
        # transformers reads one patch too early from the last id where the next id would start a patch (REFERENCE, 12.3).
        length = (patch_ids == patch_ids[-1]).sum().item()
        if entropies[-1] > config.patching_threshold or length >= config.max_patch_length:
            last -= 1
    error = is_near(f"{name}: logits", saved["logits"][:last], logits[:last])
    if entropies is not None:
        is_near(f"{name}: entropies", saved["entropies"], entropies)
    bits = bits_per_byte(logits, text)
    expect(abs(result["bits_per_byte"] - bits) <= 1e-5, f"{name}: {result['bits_per_byte']} bits per byte instead of {bits}")
    expect(result["bytes"] == len(text), f"{name}: {result['bytes']} bytes instead of {len(text)}")
    patches = patch_ids.max().item()  # the BOS patch not counted
    expect(result["patches"] == patches, f"{name}: {result['patches']} patches instead of {patches}")
    print(f"  {name}: {result['bits_per_byte']:.6f} bits per byte, off by {abs(result['bits_per_byte'] - bits):.1e}; logits by "
          f"{error:.1e} of {logits.abs().max():.2f}; {patches} patches of {len(text)} bytes, {len(logits) - last} ids left out")


# 1. Random models of transformers.


def rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


def make_config(o):
    """BltConfig from flat options, each with a default."""
    get = lambda key, default: o.get(key, default)
    section = lambda part, dim, heads, layers: {
        "hidden_size": get(f"{part}_dim", dim), "num_attention_heads": get(f"{part}_heads", heads),
        "num_key_value_heads": get(f"{part}_kv_heads", None), "num_hidden_layers": get(f"{part}_layers", layers),
        "intermediate_size": get(f"{part}_ffn", 40), "rms_norm_eps": get(f"{part}_eps", 1e-5),
        "rope_parameters": rope(get(f"{part}_theta", 5e5)), "vocab_size": 260}
    local = {"cross_attn_k": get("k", 2), "hidden_size_global": get("latent_dim", 64), "hidden_size": get("local_dim", 32)}
    latent = section("latent", 64, 4, 2)
    del latent["vocab_size"]
    return BltConfig(
        patch_in_forward=get("patch_in_forward", True), patching_mode=get("mode", "entropy"),
        max_patch_length=get("max_patch_length", None), local_attention_window_len=get("window", 512), cross_attn_k=get("k", 2),
        encoder_hash_byte_group_size=get("hash_sizes", [3, 4, 5]), encoder_hash_byte_group_vocab=get("hash_rows", 97),
        encoder_hash_byte_group_nb_functions=get("hash_functions", 1), tie_word_embeddings=get("tied", False),
        encoder_config={**section("encoder", 32, 4, 1), **local, "cross_attn_all_layers": get("encoder_all", False)},
        decoder_config={**section("decoder", 32, 4, 2), **local, "cross_attn_all_layers": get("decoder_all", True)},
        global_config=latent,
        patcher_config={**section("patcher", 32, 4, 2), "sliding_window": get("patcher_window", 512),
                        "rope_parameters": rope(get("patcher_theta", 1e4))})


def make_model(options, seed, text):
    """A random model whose threshold lies clear of all entropies of the text, so that rounding moves no patch."""
    torch.manual_seed(seed)
    model = BltForCausalLM(make_config(options)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # gains other than one
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    _, entropies, _ = of_transformers(model, text)
    if entropies is not None:
        ranked = entropies.sort().values
        some = ranked[int(0.6 * len(ranked)):int(0.85 * len(ranked))]  # patches of 2 to 6 bytes
        gap = (some[1:] - some[:-1]).argmax().item()
        assert some[gap + 1] - some[gap] > 4e-4, "no place for a threshold"
        model.config.patching_threshold = ((some[gap] + some[gap + 1]) / 2).item()
    return model


NAMED = {
    "base": {},
    "past every window of 512": {"text": TEXT * 3},
    "one byte": {"text": b"a", "mode": "byte"},
    "projection, grouped queries, k 1": {"latent_dim": 40, "k": 1, "encoder_kv_heads": 2, "decoder_kv_heads": 1,
                                         "latent_kv_heads": 2, "patcher_kv_heads": 2},
    "k 4, short patches, three hash functions": {"k": 4, "latent_dim": 128, "max_patch_length": 3, "hash_functions": 3},
    "k 3 of projected width": {"k": 3, "max_patch_length": 7, "window": 33},
    "tied, odd tables": {"tied": True, "hash_sizes": [2, 9, 4], "hash_rows": 41},
    "more hash functions than primes": {"hash_functions": 13, "hash_sizes": [3], "hash_rows": 10},
    "no n-grams": {"hash_functions": 0},
    "cross-attention in all of three encoder layers": {"encoder_layers": 3, "encoder_all": True, "window": 9, "patcher_window": 5},
    "cross-attention after the last of two encoder layers": {"encoder_layers": 2, "decoder_all": False, "decoder_layers": 3},
    "no windows": {"window": None, "patcher_window": None, "text": TEXT * 2},
    "a window of one": {"window": 1, "patcher_window": 1},
    "numbers of their own": {"encoder_theta": 1e3, "decoder_theta": 2e4, "latent_theta": 300.0, "patcher_theta": 5e3,
                             "encoder_eps": 1e-3, "decoder_eps": 1e-4, "latent_eps": 1e-6, "patcher_eps": 1e-2,
                             "encoder_ffn": 24, "decoder_ffn": 56, "latent_ffn": 100, "patcher_ffn": 8},
    "a mode that transformers turns into bytes": {"mode": "space"},
    "bytes, patches of at most one": {"mode": "byte", "max_patch_length": 1},
    "no patcher": {"patch_in_forward": False, "tied": True},
}


def random_options(seed):
    draw = random.Random(seed)
    heads = draw.choice([1, 2, 4])
    local_dim, k = heads * draw.choice([4, 6, 8, 10]), draw.randint(1, 4)
    latent_heads, patcher_heads = draw.choice([1, 2, 3, 4]), draw.choice([1, 2, 3])
    o = {"local_dim": local_dim, "k": k, "encoder_heads": heads, "decoder_heads": draw.choice([1, heads]),
         "latent_heads": latent_heads, "patcher_heads": patcher_heads, "patcher_dim": patcher_heads * draw.choice([8, 12]),
         "latent_dim": k * local_dim if draw.random() < 0.4 and k * local_dim % (2 * latent_heads) == 0
         else latent_heads * draw.choice([6, 10, 16])}
    for part in ("encoder", "decoder", "latent", "patcher"):
        o[f"{part}_layers"] = draw.randint(1, 3)
        o[f"{part}_ffn"] = draw.randint(5, 70)
        o[f"{part}_theta"] = draw.choice([50.0, 1e4, 5e5])
        part_heads = o[f"{part}_heads"]
        o[f"{part}_kv_heads"] = draw.choice([None] + [n for n in range(1, part_heads + 1) if part_heads % n == 0])
    o |= {"encoder_all": draw.random() < 0.5, "decoder_all": draw.random() < 0.7, "tied": draw.random() < 0.3,
          "window": draw.choice([None, 2, 16, 100, 512]), "patcher_window": draw.choice([None, 3, 40, 512]),
          "hash_sizes": [draw.randint(1, 12) for _ in range(draw.randint(1, 5))], "hash_rows": draw.randint(1, 300),
          "hash_functions": draw.randint(0, 3), "max_patch_length": draw.choice([None, None, 1, 2, 5, 17]),
          "text": (TEXT * 3)[draw.randint(0, 300):][:draw.randint(60, 600)]}
    return o


def random_model(name, options, seed):
    text = options.get("text", TEXT)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model = make_model(options, seed, text)
        model.save_pretrained(work / "model")
        compare(name, work / "model", model, text, work)


def sharded(tied):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        model = make_model({"tied": tied}, 7, TEXT)
        model.save_pretrained(work / "model", max_shard_size="50KB")
        expect((work / "model" / "model.safetensors.index.json").exists(), "sharded: transformers wrote one file")
        expect(len(list((work / "model").glob("*.safetensors"))) > 3, "sharded: transformers wrote few files")
        compare(f"sharded{', tied' if tied else ''}", work / "model", model, TEXT, work)


def narrow(dtype):
    """Weights of 16 bits are computed with in float32."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        make_model({}, 11, TEXT).to(dtype).save_pretrained(work / "narrow")
        model = BltForCausalLM.from_pretrained(work / "narrow", dtype=torch.float32).eval()
        # The threshold of the wide model may be near an entropy of the narrow one.
        _, entropies, _ = of_transformers(model, TEXT)
        assert (entropies - model.config.patching_threshold).abs().min() > 1e-4, "choose another seed"
        compare(f"saved as {dtype}", work / "narrow", model, TEXT, work)


# 2. and 3. Models of blt_train.

RUN = """
output: {output}
data:
  sources: [{{paths: [{text}]}}]
  sequence_bytes: 300
  batch_bytes: 900
entropy_model:
  kind: train
  model: {{dim: 32, layers: 2, heads: 4, kv_heads: 2, ffn_dim: 40, window: 24{entropy_model}}}
  train: {{steps: 6, optimizer: {{learning_rate: 0.01}}}}
patching:
  rule: {rule}
  max_patch_length: {max_patch_length}
model:
  local_dim: 32
  window: 48
  ngram: {{sizes: [2, 3, 6], rows: 120, functions: 2}}
  local_encoder: {{layers: 2, heads: 2, ffn_dim: 40{encoder}}}
  latent_transformer: {{dim: 48, layers: 2, heads: 4, kv_heads: 2, ffn_dim: 72}}
  local_decoder: {{layers: 2, heads: 4, ffn_dim: 40, cross_attention: first}}
  tie_embeddings: {tied}
train:
  steps: 6
  optimizer: {{learning_rate: 0.01}}
"""


def train(work, *overrides, **options):
    settings = {"rule": "{kind: entropy, mean_patch_bytes: 4}", "max_patch_length": "null", "entropy_model": "", "encoder": "",
                "tied": "false"} | options
    (work / "run.yaml").write_text(RUN.format(output=work / "out", text=ROOT / "LICENSE", **settings))
    run("blt_train", work / "run.yaml", *overrides)
    return work / "out" / "latest"


def clear_text(model):
    """A piece of the text where no entropy is so near the threshold that rounding could move a patch (REFERENCE, 16)."""
    whole = (ROOT / "CONTRIBUTING.md").read_bytes()
    for start in range(0, len(whole) - 400, 100):
        text = whole[start:start + 400]
        _, entropies, _ = of_transformers(model, text)
        if entropies is None or (entropies - model.config.patching_threshold).abs().min() > 1e-4:
            return text
    raise RuntimeError("no text is clear of the threshold")


BFLOAT16 = ("train.compute=bfloat16", "entropy_model.train.compute=bfloat16")


def trained(name, *overrides, **options):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        directory = train(work, *overrides, **options)
        expect(json.loads((directory / "config.json").read_text())["model_type"] == "blt", f"{name}: is no plain directory")
        model, info = BltForCausalLM.from_pretrained(directory, output_loading_info=True)
        expect(not any(info.values()), f"{name}: transformers complains: {info}")
        compare(name, directory, model.eval(), clear_text(model), work)
        expect(type(AutoModelForCausalLM.from_pretrained(directory)) is BltForCausalLM, f"{name}: AutoModelForCausalLM")
        # And once through transformers: what it writes, libblt reads.
        model.save_pretrained(work / "again", max_shard_size="60KB")
        compare(f"{name}, saved again", work / "again", model, clear_text(model), work)


def trained_in_bfloat16():
    """A directory that is bfloat16 throughout: transformers computes in bfloat16 unless told otherwise, libblt in float32."""
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        directory = train(work, "train.compute=bfloat16", "entropy_model=null", "model.ngram.dropout=0.1", rule="{kind: byte}")
        text = (ROOT / "CONTRIBUTING.md").read_bytes()[:400]
        model, info = BltForCausalLM.from_pretrained(directory, output_loading_info=True)
        expect(not any(info.values()), f"bfloat16: transformers complains: {info}")
        expect({p.dtype for p in model.parameters()} == {torch.bfloat16}, "bfloat16: transformers loads another type")
        model.save_pretrained(work / "again")
        config = json.loads((work / "again" / "config.json").read_text())
        expect(config["dtype"] == "bfloat16", f"bfloat16: saved again as {config['dtype']}")
        expect(config.get("encoder_hash_byte_group_dropout") == 0.1, "bfloat16: the dropout of n-grams is lost when saved again")
        narrow, _, _ = of_transformers(model.eval(), text)
        wide = BltForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        compare("bfloat16, computed in float32", directory, wide, text, work)
        # Each of some dozens of roundings in a row is 2^-8 of its value at most.
        expected, _, _ = of_transformers(wide, text)
        error, allowed = (narrow - expected).abs().max().item(), 0.05 * expected.abs().max().item()
        expect(error <= allowed, f"bfloat16: transformers' logits in bfloat16 differ by {error:.3g}, allowed are {allowed:.3g}")
        print(f"  bfloat16: transformers in bfloat16 is off by {error:.1e} of {expected.abs().max():.2f}")


def trained_entropy_model(*overrides):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        train(work, *overrides)
        directory = work / "out" / "entropy_model" / "latest"
        patcher, info = BltPatcher.from_pretrained(directory, output_loading_info=True, dtype=torch.float32)
        expect(not any(info.values()), f"entropy model: transformers complains: {info}")
        with torch.no_grad():
            entropies, _, logits = patcher.eval()(ids_of(TEXT))
        result, saved = of_libblt(directory, TEXT, work)
        error = is_near("entropy model: logits", saved["logits"], logits[0])
        is_near("entropy model: entropies", saved["entropies"], entropies[0])
        bits = bits_per_byte(logits[0], TEXT)
        expect(abs(result["bits_per_byte"] - bits) <= 1e-5, f"entropy model: {result['bits_per_byte']} instead of {bits}")
        print(f"  entropy model alone: {bits:.6f} bits per byte; logits off by {error:.1e}")


def refused(name, **options):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        directory = train(work, **options)
        result, _ = of_libblt(directory, TEXT, work)  # libblt reads its own
        expect(math.isfinite(result["bits_per_byte"]), f"{name}: {result}")
        loaders = [BltForCausalLM, BltModel, BltConfig, AutoConfig, AutoModel, AutoModelForCausalLM]
        if options.get("entropy_model"):
            directory = work / "out" / "entropy_model" / "latest"
            of_libblt(directory, TEXT, work)
            loaders = [BltPatcher, AutoConfig, AutoModel]
        for loader in loaders:
            try:
                loader.from_pretrained(directory)
                expect(False, f"{name}: {loader.__name__} loads what transformers cannot compute")
            except Exception as error:  # whatever it is: nothing was computed
                print(f"  {name}: {loader.__name__} says {type(error).__name__}: {str(error).strip().splitlines()[0][:90]}")


def checks():
    for seed, (name, options) in enumerate(NAMED.items()):
        yield name, lambda: random_model(name, options, seed)
    for seed in range(8):
        yield f"random {seed}", lambda: random_model(f"random {seed}", random_options(seed), 100 + seed)
    for tied in (False, True):
        yield f"sharded {tied}", lambda: sharded(tied)
    for dtype in (torch.bfloat16, torch.float16):
        yield f"narrow {dtype}", lambda: narrow(dtype)
    yield "trained", lambda: trained("trained")
    yield "trained, short patches, tied", lambda: trained("trained, short patches, tied", max_patch_length=5, tied="true")
    yield "trained on bytes", lambda: trained("trained on bytes", rule="{kind: byte}")
    yield "trained repooling", lambda: trained("trained repooling", encoder=", cross_attention: all, patch_queries: repool")
    yield "trained by ranks", lambda: trained("trained by ranks that divide all", "--nproc", 2, "parallel.sharding=zero3", "parallel.tables=sharded")
    yield "trained entropy model", trained_entropy_model
    # The entropy model inside stays float32, so transformers computes in float32 too, on the same patches.
    yield "trained in bfloat16", lambda: trained("trained in bfloat16", *BFLOAT16)
    yield "trained in bfloat16 throughout", trained_in_bfloat16
    yield "trained entropy model in bfloat16", lambda: trained_entropy_model(*BFLOAT16)
    yield "refused space", lambda: refused("space patching", rule="{kind: space}")
    yield "refused pooling", lambda: refused("mean pooling", encoder=", pooling: mean")
    yield "refused accumulating", lambda: refused("accumulating encoder", encoder=", cross_attention: all")
    yield "refused monotonic", lambda: refused("monotonic patching", rule="{kind: entropy, mean_patch_bytes: 4, monotonic: true}")
    yield "refused n-grams", lambda: refused("n-grams in the entropy model", entropy_model=", ngram: {sizes: [3], rows: 50}")


def main():
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(2)
    count = 0
    for name, check in checks():
        if sys.argv[2:] and not any(wanted in name for wanted in sys.argv[2:]):
            continue
        count += 1
        print(name, flush=True)
        try:
            check()
        except Exception as error:
            expect(False, f"{name}: {type(error).__name__}: {error}")
    print("\n".join(complaints) or f"{count} checks hold, transformers {transformers.__version__}")
    return bool(complaints) or not count


if __name__ == "__main__":
    sys.exit(main())
