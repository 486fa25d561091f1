"""Commands in the documents are commands that exist: python commands_test.py REPOSITORY BIN

Reads the ```bash blocks of README.md, CONTRIBUTING.md and docs/. Scripts must be there; files of configs/ must be there; a program
must know the options it is given; blt_train must take the config with its overrides (--print-config).
"""
import pathlib
import re
import shlex
import subprocess
import sys

root, programs = map(pathlib.Path, sys.argv[1:])
complaints, checked = [], 0


def output_of(*command):
    done = subprocess.run([str(part) for part in command], cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


for page in [root / "README.md", root / "CONTRIBUTING.md", *sorted(root.glob("docs/*.md"))]:
    text = page.read_text()
    for block in re.finditer(r"^```bash\n(.*?)^```", text, re.M | re.S):
        first = text.count("\n", 0, block.start()) + 2
        for number, line in enumerate(block[1].replace("\\\n", "  ").splitlines(), first):
            words = shlex.split(line, comments=True)
            if not words:
                continue
            checked += 1
            where = f"{page.relative_to(root)}:{number}"
            for word in words:
                if re.match(r"(configs|tools|\.ci)/", word) and not (root / word).exists():
                    complaints.append(f"{where}: there is no {word}")
            if not words[0].startswith("build/release/bin/"):
                continue
            program = programs / pathlib.Path(words[0]).name
            if not program.exists():
                complaints.append(f"{where}: there is no program {program.name}")
                continue
            options = [word.split("=")[0] for word in words[1:] if word.startswith("--")]
            _, usage = output_of(program, "--help")
            complaints += [f"{where}: {program.name} does not know {option}" for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", usage)]
            if program.name == "blt_train" and len(words) > 1 and words[1].endswith(".yaml"):
                if "--init" in words:  # its model directory is not there; what else the line says still has to hold
                    del words[words.index("--init"):words.index("--init") + 2]
                status, said = output_of(program, *words[1:], "--print-config")
                if status:
                    complaints.append(f"{where}: {line}\n{said}")
print("\n".join(complaints) or f"{checked} commands hold")
sys.exit(bool(complaints) or not checked)
