#!/usr/bin/env python3
"""Writes bfloat16.json: how far transformers' logits in bfloat16 are from those that it computes in float32, for each case of each config here.

Weights, activations and sums' results are bfloat16 (`model.to(torch.bfloat16)`); patches are those of float32. {config: {case: {"largest", "rms"}}}, of
all rows and ids of a case. In float32 the script computes the recorded logits themselves, and stops where it does not.
"""
import json
import pathlib

import torch
import transformers
from safetensors.torch import load_file


def main():
    transformers.logging.set_verbosity_error()
    here = pathlib.Path(__file__).parent
    result = {"transformers": transformers.__version__, "torch": torch.__version__}
    for folder in sorted(path.parent for path in here.glob("*/cases.safetensors")):
        cases = load_file(folder / "cases.safetensors")
        model = transformers.BltForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        result[folder.name] = {}
        for dtype in (torch.float32, torch.bfloat16):
            model.to(dtype)
            for key in sorted(key for key in cases if key.endswith(".input_ids")):
                name = key.removesuffix(".input_ids")
                with torch.no_grad():
                    logits = model(input_ids=cases[key].long(), patch_lengths=cases[name + ".hf.patch_lengths"].long(), use_cache=False).logits
                error = (logits.double() - cases[name + ".hf.logits"].double()).abs()
                assert dtype != torch.float32 or error.max() < 1e-4, (folder.name, name, error.max())
                result[folder.name][name] = {"largest": round(float(error.max()), 6), "rms": round(float(error.square().mean().sqrt()), 6)}
    (here / "bfloat16.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
