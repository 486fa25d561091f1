#!/usr/bin/env python3
"""Cuts the reference tensors down to what the tests compare: make_cases.py GOLDEN_DIR [CONFIG...]

GOLDEN_DIR holds <config>/{config.json,model.safetensors,cases.safetensors}: random models written by transformers
5.23.0, and what transformers (`hf`) and the official implementation (`official`) compute with them. The first two
are copied, the third is trimmed into the folder of this script:

* `english` and `maxlast` keep every stage and gradient; `utf8` and `docs` keep logits, loss, patch states, latents
  and ids; ids and lengths become int32.
* `official` stays only where libblt computes what it computes and transformers something else: the logits of
  `maxlast` (REFERENCE, section 12.3) and, with cross-attention in every encoder layer, logits and patch states
  (section 12.1).
"""
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

STAGES_OF_OTHER_CASES = {"logits", "loss", "enc_cross", "global_out", "patch_ids", "decoder_patch_ids"}


def wanted(key, accumulates_differently):
    case, rest = key.split(".", 1)
    if rest in ("input_ids", "entropies"):
        return True
    source, stage = rest.split(".", 1)
    if source == "hf":
        return case in ("english", "maxlast") or stage in STAGES_OF_OTHER_CASES
    if case == "maxlast":
        return stage == "logits"
    return accumulates_differently and case in ("english", "utf8") and stage in ("logits", "enc_cross")


def main():
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    names = sys.argv[2:] or sorted(p.parent.name for p in source.glob("*/cases.safetensors"))
    for name in names:
        (here / name).mkdir(exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            shutil.copyfile(source / name / file, here / name / file)
        cases = load_file(source / name / "cases.safetensors")
        kept = {
            key: tensor.to(torch.int32) if tensor.dtype == torch.int64 else tensor
            for key, tensor in cases.items()
            if wanted(key, accumulates_differently=name == "d_enc2_all")
        }
        save_file(kept, here / name / "cases.safetensors")  # in the order of names, so the bytes are reproducible
        print(name, f"{len(kept)} of {len(cases)} tensors,", (here / name / "cases.safetensors").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
