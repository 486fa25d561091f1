#!/usr/bin/env python3
"""Cuts the reference tensors down to what the tests compare: make_cases.py GOLDEN_DIR [CONFIG...]

GOLDEN_DIR holds <config>/{config.json,model.safetensors,cases.safetensors}: random models written by transformers
5.23.0, and what transformers (`hf`) and the official implementation (`official`) compute with them. The first two
are copied, the third is trimmed into the folder of this script:

* everything of `hf` stays; ids and lengths become int32;
* of `official`, what libblt has to agree with: nothing of `docs`, where the official implementation masks documents
  (REFERENCE, section 12.2), no batched entropies (12.5) and no lengths without the id that comes next.
"""
import pathlib
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file


def wanted(key):
    case, rest = key.split(".", 1)
    if not rest.startswith("official."):
        return True
    return case != "docs" and rest not in ("official.entropies_flattened", "official.patch_lengths_no_next")


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
            if wanted(key)
        }
        save_file(kept, here / name / "cases.safetensors")  # in the order of names, so the bytes are reproducible
        print(name, f"{len(kept)} of {len(cases)} tensors,", (here / name / "cases.safetensors").stat().st_size, "bytes")


if __name__ == "__main__":
    main()
