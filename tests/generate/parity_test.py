"""Greedy bytes are those of transformers' generate(use_cache=False): python parity_test.py BLT_GENERATE. Exit status 77: skipped.

Fresh random models, prompts of 0, 1 and 1,000 bytes, and past the windows. A first difference counts only where the reference's
choice is clear: the gap between its two best logits, and between every entropy and the threshold, exceeds 1e-4.
"""
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    import transformers
    from transformers import BltConfig, BltForCausalLM
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)
program = sys.argv[1]
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)  # small models; the other cores may be busy
BOS, BYTE_OFFSET, CLEAR = 1, 4, 1e-4
TEXT = ("The Byte Latent Transformer groups bytes into patches: a new patch starts where the next byte is hard to predict.\n"
        "Zürich, Kraków, Łódź; 3,141.59 — 日本語 🙂. ").encode()


def random_model(seed, *, layers, k, all_layers, kv_heads, window, hash_functions, tie):
    rope = {"rope_type": "default", "rope_theta": 500000.0}
    local = dict(vocab_size=260, cross_attn_k=k, hidden_size_global=96, hidden_size=64, num_attention_heads=2, intermediate_size=96,
                 max_position_embeddings=8192, rope_parameters=rope)
    config = BltConfig(
        vocab_size=260, patch_in_forward=True, patching_mode="entropy", cross_attn_k=k, local_attention_window_len=window,
        encoder_hash_byte_group_size=[3, 4, 5], encoder_hash_byte_group_vocab=500, encoder_hash_byte_group_nb_functions=hash_functions,
        max_position_embeddings=4096, rope_parameters=rope, tie_word_embeddings=tie,
        patcher_config=dict(vocab_size=260, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                            max_position_embeddings=8192, sliding_window=window + 8,
                            rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        encoder_config=dict(local, num_hidden_layers=layers, cross_attn_all_layers=all_layers),
        decoder_config=dict(local, num_hidden_layers=2, cross_attn_all_layers=True),
        global_config=dict(hidden_size=96, num_attention_heads=4, num_key_value_heads=kv_heads, num_hidden_layers=2, intermediate_size=128,
                           max_position_embeddings=4096, rope_parameters=rope))
    torch.manual_seed(seed)
    model = BltForCausalLM(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # gains that matter, and outputs that are not all alike
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
        ids = torch.tensor([[BOS] + [b + BYTE_OFFSET for b in (TEXT * 3)[:400]]])
        entropies, _, _ = model.model.patcher(ids, patch_size=4, threshold=5.0)
        model.config.patching_threshold = float(entropies[:, 1:].flatten().quantile(0.75))
    return model


def is_clear(model, ids):
    """Whether transformers' next id is beyond doubt, with the patches before it."""
    with torch.no_grad():
        x = torch.tensor([ids])
        best = model(input_ids=x, use_cache=False).logits[0, -1].topk(2).values
        entropies, _, _ = model.model.patcher(x, patch_size=4, threshold=5.0)
    nearest = (entropies[0, 1:] - model.config.patching_threshold).abs().min() if len(ids) > 1 else torch.tensor(1.0)
    return bool(best[0] - best[1] > CLEAR) and bool(nearest > CLEAR)


def shown(ids):
    return bytes(i - BYTE_OFFSET for i in ids if i >= BYTE_OFFSET)


MODELS = [dict(layers=1, k=2, all_layers=False, kv_heads=4, window=16, hash_functions=1, tie=False),
          dict(layers=1, k=4, all_layers=False, kv_heads=2, window=512, hash_functions=2, tie=False),
          dict(layers=2, k=2, all_layers=True, kv_heads=4, window=100, hash_functions=1, tie=True)]
failures, compared, unclear, special = 0, 0, 0, 0
for seed, options in enumerate(MODELS):
    model = random_model(seed, **options)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for size, wanted in ((0, 24), (1, 24), (130, 24), (1000, 10)):
            prompt = (TEXT * 9)[:size]
            prompt_file = pathlib.Path(folder) / "prompt"
            prompt_file.write_bytes(prompt)
            x = torch.tensor([[BOS] + [b + BYTE_OFFSET for b in prompt]])
            with torch.no_grad():
                reference = model.generate(x, max_new_tokens=wanted, min_new_tokens=wanted, do_sample=False, use_cache=False, pad_token_id=0,
                                           eos_token_id=None)[0].tolist()
            expected = shown(reference[size + 1:])
            special += wanted - len(expected)
            done = subprocess.run([program, folder, "--prompt-file", prompt_file, "--max-bytes", str(wanted), "--greedy", "--ignore-eos"],
                                  capture_output=True)
            compared += len(expected)
            if done.returncode == 0 and done.stdout == expected:
                continue
            same = 0  # ids whose bytes agree
            while same < wanted and done.stdout.startswith(shown(reference[size + 1:size + 2 + same])):
                same += 1
            if done.returncode == 0 and not is_clear(model, reference[:size + 1 + same]):
                unclear += 1
                continue
            failures += 1
            print(f"model {seed} {options}, prompt of {size} bytes: exit status {done.returncode}, {done.stderr.decode()}\n"
                  f"  first difference at id {same}\n  transformers {expected}\n  libblt       {done.stdout}")
print(f"{compared} bytes compared ({special} special ids between them), {unclear} differences where the choice was not clear, "
      f"{failures} failures")
sys.exit(bool(failures) or not compared or unclear > 3)
