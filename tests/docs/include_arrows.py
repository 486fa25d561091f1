"""Checks who includes whom (the arrows in docs/architecture.md), and that a public header is the same text in every build.

    python include_arrows.py REPOSITORY
"""
import pathlib
import re
import sys

# Each layer, and the layers right below it; what is below those is below it too.
BELOW = {"tools": ["train"], "train": ["eval", "generate", "io"], "eval": ["data"], "data": ["patching"],
         "generate": ["patching"], "io": ["patching"], "patching": ["model"], "model": ["ops"], "ops": ["batch"],
         "batch": ["base", "text_place"], "text_place": [], "base": []}
# What a public header may take from outside: the C++ library (no dot in the name) and LibTorch.
PUBLIC_OUTSIDE = re.compile(r"[a-z_]+$|(ATen|c10|torch)/")


def layer(path):
    """The layer that a path below include/blt, src or tools belongs to: its folder, or its name (batch.h, batch.cpp)."""
    return path.split("/")[0].split(".")[0]


def below(name):
    return {name}.union(*(below(other) for other in BELOW[name]))


root = pathlib.Path(sys.argv[1])
complaints, files = [], 0
for folder in ("include/blt", "src", "tools"):
    for file in sorted(root.joinpath(folder).rglob("*")):
        if file.suffix not in (".h", ".cpp", ".cu", ".cuh"):
            continue
        files += 1
        own = "tools" if folder == "tools" else layer(file.relative_to(root / folder).as_posix())
        public = folder == "include/blt"
        for number, line in enumerate(file.read_text().splitlines(), 1):
            where = f"{file.relative_to(root)}:{number}"
            if public and re.match(r"\s*#\s*(if|ifdef|ifndef|elif)\b", line) and not re.search(r"__(CUDACC|cplusplus)", line):
                complaints.append(f"{where}: a public header may not depend on how it is built: {line.strip()}")
            match = re.match(r'\s*#\s*include\s*([<"])(.+?)[>"]', line)
            if not match:
                continue
            quoted, name = match[1] == '"', match[2]
            if quoted:
                target = layer(name.removeprefix("blt/") if name.startswith("blt/") or "/" in name else own + "/")
                if target not in BELOW:
                    complaints.append(f"{where}: {name} is in no layer that this test knows")
                elif target not in below(own):
                    complaints.append(f"{where}: {own} may not include {target} ({name})")
                if public and not name.startswith("blt/"):
                    complaints.append(f"{where}: a public header may include public headers only, not {name}")
            elif public and not PUBLIC_OUTSIDE.match(name):
                complaints.append(f"{where}: a public header may use the C++ library and LibTorch only, not {name}")
print("\n".join(complaints) or f"{files} files keep to the arrows")
sys.exit(bool(complaints) or not files)
