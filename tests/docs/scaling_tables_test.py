"""docs/scaling.md says what dry runs say now: python scaling_tables_test.py REPOSITORY BUILD

The rows of one number of ranks are made again and have to stand there.
"""
import pathlib
import subprocess
import sys

root, build = map(pathlib.Path, sys.argv[1:])
made = subprocess.run([root / "bench/scaling_tables", "--build", build, "--ranks", "64"], check=True, capture_output=True, text=True).stdout
written = set((root / "docs/scaling.md").read_text().splitlines())
rows = [line for line in made.splitlines() if line.startswith("| 64 |")]
missing = [row for row in rows if row not in written]
if len(rows) < 20:
    sys.exit(f"only {len(rows)} rows were made:\n{made}")
if missing:
    sys.exit("docs/scaling.md does not have these; make its tables anew with bench/scaling_tables:\n" + "\n".join(missing))
print(f"{len(rows)} rows hold")
