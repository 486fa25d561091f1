"""tools/gpu_check with programs that only pretend: what its file holds after failures, crashes, hangs, kills and lack of time.

    python gpu_check_test.py REPOSITORY BUILD

BUILD/bin/ops_test is the real one, whose lines the script has to understand, and BUILD/bin/blt_train, which has to take its settings.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

repository, real_build = (pathlib.Path(part).resolve() for part in sys.argv[1:3])

# A GoogleTest program: what a test does is its name. Each run is noted, so that none happens twice unseen.
OPS_TEST = r"""
import os, re, sys, time
TESTS = [("Pool/OpTest", ["CudaEqualsReference/T2_C3", "CudaEqualsReference/T90_C3", "EmulatedCudaEqualsReference/T2"]),
         ("Plain", ["Passes", "Fails", "IsSkipped", "Crashes", "Passes2", "Hangs", "Passes3", "Slow1", "Slow2", "Slow3", "Slow4"])]
names = [f"{suite}.{test}" for suite, tests in TESTS for test in tests]
arguments = " ".join(sys.argv[1:])
if "--gtest_list_tests" in arguments:
    for suite, tests in TESTS:
        print(suite + ".")
        for test in tests: print("  " + test + "  # GetParam() = x")
    if "MANY" in os.environ: print("Many.\n" + "".join(f"  Cuda{i}\n" for i in range(30)))
    sys.exit()
wanted = re.search(r"--gtest_filter=(.*)", open(arguments.split("--gtest_flagfile=")[1]).read())[1].split(":")
failed = 0
for name in names:
    if name not in wanted: continue
    print(f"[ RUN      ] {name}", flush=True)
    with open(os.environ["NOTES"], "a") as notes: notes.write(name + "\n")
    what = name.split(".")[1]
    if what.startswith("Slow"): time.sleep(float(os.environ.get("SLOW_SECONDS", 0.7)))
    if what == "Hangs": time.sleep(1000)
    if what == "Crashes": print("about to crash", flush=True); os.abort()
    if what == "Fails": print("a.cpp:3: Failure\nExpected 1, got 2"); failed = 1
    if what == "IsSkipped": print("a.cpp:9: Skipped\nno CUDA device\n")
    ends = {"Fails": f"[  FAILED  ] {name}, where GetParam() = x (2 ms)", "IsSkipped": f"[  SKIPPED ] {name} (0 ms)"}
    print(ends.get(what, f"[       OK ] {name} (1 ms)"), flush=True)
at_exit = os.environ.get("AT_EXIT")
if at_exit == "tear-down": print("a.cpp:5: Failure\n[  FAILED  ] Plain: SetUpTestSuite or TearDownTestSuite"); failed = 1
if failed: print("[  FAILED  ] 1 test, listed below:\n[  FAILED  ] Plain.Fails", flush=True)
if at_exit == "crash": os.abort()
if at_exit == "hang": time.sleep(1000)
sys.exit(failed)
"""
BENCH_OPS = r"""
import re, sys, time
names = ["pool/forward/T4 (x)", "pool/backward/T4 (x)", "packed/forward/N4"]
arguments = dict(argument.split("=", 1) for argument in sys.argv[1:])
assert arguments["--device"] == "cuda"
if "--benchmark_list_tests" in arguments: print("\n".join(name + "/manual_time" for name in names)); sys.exit()
print('{\n  "context": {\n    "caches": [\n      {\n        "x": 1\n      }\n    ]\n  },\n  "benchmarks": [')
for name in names:
    if not re.search(arguments["--benchmark_filter"], name + "/manual_time"): continue
    error = ',\n      "error_occurred": true,\n      "error_message": "no CUDA kernel of this operator"' if name.startswith("packed") else ""
    print('    {\n      "name": "%s/manual_time",\n      "real_time": 12.5,\n      "GB/s": 1.5e3,\n      "bound": 8.0e-01%s\n    },' % (name, error), flush=True)
    if name.startswith("pool/forward") and arguments["--dtype"] == "float32": sys.exit("out of something")
print("  ]\n}")
"""
SANITIZER = r"""
import os, re, sys, time
check, names = sys.argv[2], re.search(r"--gtest_filter=(.*)", open(sys.argv[-1].split("=")[1]).read())[1].split(":")
assert len(names) <= 12
for number, name in enumerate(names):
    print(f"[ RUN      ] {name}", flush=True)
    time.sleep(float(os.environ.get("SANITIZER_SECONDS", 0)))
    if number < int(os.environ.get("SANITIZER_SKIPS", 0)): print(f"a.cpp:9: Skipped\nno device of this kind\n\n[  SKIPPED ] {name} (1 ms)")
    else: print(f"[       OK ] {name} (1 ms)", flush=True)
if check == "racecheck": print("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")
elif check == "initcheck": print("========= Uninitialized __global__ memory read of size 4 bytes\n========= ERROR SUMMARY: 3 errors"); sys.exit(99)
else: print("========= ERROR SUMMARY: 0 errors")
"""
BLT_TRAIN = r"""
import json, os, pathlib, re, sys, time
config = open(sys.argv[1]).read()
folder = pathlib.Path(re.search("output: (.*)", config)[1]); folder.mkdir(parents=True)
off = {"train.compute=float32": 0, "train.compute=bfloat16": 0.5}[sys.argv[2]]
assert sys.argv[3] in ("device=cpu", "device=cuda"), sys.argv
assert [setting.split("=")[0] for setting in sys.argv[4:]] in ([], ["parallel.sharding", "parallel.tables"]), sys.argv
assert ("RANK" in os.environ) == (len(sys.argv) > 4)
if "RANK" in os.environ: off = float(os.environ.get("RANK_IS_OFF", 0))
slow = "SLOW_CPU" in os.environ and sys.argv[3] == "device=cpu"
with open(folder / "metrics.jsonl", "w") as out:
    for step in range(int(re.search("steps: (.*)", config)[1])):
        if slow and step == 25: out.write('{"lo'); out.flush(); time.sleep(1000)
        out.write(json.dumps({"step": step + 1, "loss": 5 - step * 0.1 + off, "bytes_per_s": 10}) + "\n")
"""
TORCHRUN = r"""
import os, sys
assert sys.argv[1:5] == ["--standalone", "--no-python", "--nproc-per-node", "1"], sys.argv
os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
os.execv(sys.argv[5], sys.argv[5:])
"""
TRAIN_STEP = r"""
import sys
if "--help" in sys.argv: print("--shape 1b, small or tiny --device X --dtype X"); sys.exit()
words = [word for word in sys.argv[1:] if word != "--cuda-graph"]
arguments = dict(zip(words[::2], words[1::2]))
assert arguments["--device"] == "cuda", arguments
print('{"bytes_per_s": %d, "peak_mib": 30, "model_flop_utilisation": 0.3}' % (int(arguments["--rows"]) * 7))
"""
ENTROPIES = r"""
import sys
if "--help" in sys.argv: print("--shape 100m, small or tiny --device X"); sys.exit()
print('{"bytes_per_s": %d}' % (9 if "100m" in sys.argv and "bfloat16" in sys.argv else 3))
"""
LOADER = r"""
import pathlib, sys
assert sys.argv[1] == "wait", sys.argv
if sys.argv[2:] == ["--help"]: print("--device X"); sys.exit()
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert arguments["--device"] == arguments["--entropy-device"] == "cuda" and pathlib.Path(arguments["--data"]).exists(), arguments
print('{"live_cost": {"median": 0.05}}')
"""
BESIDE_TORCH = r"""
import pathlib, sys
assert pathlib.Path(sys.argv[sys.argv.index("--library") + 1]).exists() and "--device" in sys.argv, sys.argv
if "131072" in sys.argv: sys.exit("torch.OutOfMemoryError: CUDA out of memory.")
print('{"cases": {"with_text": %d}}' % ("--text" in sys.argv))
"""
PEER = r"""
import sys
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
if arguments["--config"] == "1b" and int(arguments["--B"]) > 2: sys.exit("torch.OutOfMemoryError: CUDA out of memory.")
print('{"bytes_per_s_median": 5, "peak_device_mib": 50, "transformers": "5.17.0"}')
"""


class World:
    """A repository with the script alone, a machine with a pretended GPU, and what the programs did."""

    def __init__(self, folder):
        self.root, self.notes = folder / "repository", folder / "notes"
        (self.root / "tools").mkdir(parents=True)
        (self.root / "src").mkdir()
        (self.root / "src/a.cpp").write_text("int a;\n")
        for name in ("CMakeLists.txt", "CMakePresets.json"):
            (self.root / name).write_text("")
        shutil.copy(repository / "tools/gpu_check", self.root / "tools")
        self.machine = folder / "machine"
        self.script("machine/nvidia-smi", "print('Pretended H100, 580.1, 81559 MiB, 9.0')")
        self.script("machine/compute-sanitizer", SANITIZER)
        self.script("binaries/bin/ops_test", OPS_TEST)
        self.script("binaries/bin/blt_train", BLT_TRAIN)
        self.script("binaries/bench/ops", BENCH_OPS)
        self.script("binaries/bench/train_step", TRAIN_STEP)
        self.script("binaries/bench/entropies", ENTROPIES)
        self.script("binaries/bench/loader", LOADER)
        self.script("repository/bench/beside_torch", BESIDE_TORCH)
        (folder / "binaries/lib").mkdir()
        (folder / "binaries/lib/libblt_ops.so.0").write_text("")
        (folder / "peer").mkdir()
        (folder / "peer/bench_hf.py").write_text(PEER)
        for name in ("torch", "transformers"):
            (folder / f"site/{name}-1.0.dist-info").mkdir(parents=True)
            (folder / f"site/{name}-1.0.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "site/torch/distributed").mkdir(parents=True)
        for name, text in (("__init__", ""), ("distributed/__init__", ""), ("distributed/run", TORCHRUN)):
            (folder / f"site/torch/{name}.py").write_text(text)
        (folder / "text").write_text("some text")
        self.folder, self.output = folder, folder / "output"

    def script(self, name, text):
        path = (self.root.parent / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)

    def start(self, *arguments, device=True):
        environment = {**os.environ, "NOTES": str(self.notes), "PYTHONPATH": str(self.folder / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("OUT", None)
        if device:
            environment["PATH"] = f"{self.machine}:{environment['PATH']}"
        command = [sys.executable, self.root / "tools/gpu_check", "--binaries", self.folder / "binaries", "--output", self.output, "--jobs", "1",
                   "--commit", "abc", "--peer", self.folder / "peer", "--data", self.folder / "text", *arguments]
        return subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def run(self, *arguments, expected, device=True):
        process = self.start(*arguments, device=device)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == expected, f"exit status {process.returncode}, not {expected}, of {arguments}:\n{said}"
        return said

    def cases(self):
        return {(case["stage"], case["name"]): case for case in json.loads((self.output / "results.json").read_text())["cases"]}

    def ran(self):
        return self.notes.read_text().split() if self.notes.exists() else []


def status(cases, stage, name):
    return cases[stage, name]["status"]


def test_failures_crashes_and_hangs(world):
    said = world.run("--stage", "test", "--case-seconds", "10", expected=1)
    cases = world.cases()
    got = {name.removeprefix("ops_test "): case["status"] for (_, name), case in cases.items()}
    assert got == {"Pool/OpTest.CudaEqualsReference/T2_C3": "passed", "Pool/OpTest.CudaEqualsReference/T90_C3": "passed",
                   "Pool/OpTest.EmulatedCudaEqualsReference/T2": "passed", "Plain.Passes": "passed", "Plain.Fails": "failed", "Plain.IsSkipped": "skipped",
                   "Plain.Crashes": "failed", "Plain.Passes2": "passed", "Plain.Hangs": "stopped", "Plain.Passes3": "passed",
                   **{f"Plain.Slow{i}": "passed" for i in (1, 2, 3, 4)}}, got
    assert "Expected 1, got 2" in cases["test", "ops_test Plain.Fails"]["said"]
    assert "about to crash" in cases["test", "ops_test Plain.Crashes"]["said"] and "exit status -6" in cases["test", "ops_test Plain.Crashes"]["said"]
    assert cases["test", "ops_test Plain.IsSkipped"]["why"] == "no CUDA device"
    assert list(cases)[0][1].endswith("CudaEqualsReference/T2_C3")  # those on the device come first
    assert len(world.ran()) == len(set(world.ran())) == 14
    assert "10 passed, 3 failed, 1 skipped" in said and "10 passed, 3 failed, 1 skipped" in (world.output / "summary.txt").read_text()
    assert "STOPPED test: ops_test Plain.Hangs" in said and "about to crash" in (world.output / "log").read_text()
    about = json.loads((world.output / "results.json").read_text())["about"]
    assert about["commit"] == "abc" and about["device"]["name"] == "Pretended H100" and about["packages"]["torch"] == "1.0" and about["sources"], about
    assert not list(world.output.glob("*.new")) and not list(world.output.glob("gtest_flags*"))

    # Nothing is left to do; the failures stay what they were, until they are asked for again.
    world.run("--stage", "test", expected=1)
    assert len(world.ran()) == 14
    world.run("--stage", "test", "--again", "--only", "Plain.Passes", expected=0)
    assert len(world.ran()) == 17


def test_programs_that_fail_after_their_last_test(world):
    for at_exit, only, expected in (("crash", "Plain.Passes$", "failed"), ("crash", "Plain.Fails$", "failed"), ("hang", "Plain.Passes$", "stopped"),
                                    ("tear-down", "Plain.Passes$", "failed"), ("tear-down", "Plain.Fails$", "failed"), (None, "Plain.Fails$", None),
                                    (None, "Plain.Passes$", None)):
        os.environ["AT_EXIT"] = at_exit or ""
        world.run("--stage", "test", "--again", "--only", only, "--case-seconds", "3", expected=0 if at_exit is None and "Passes" in only else 1)
        cases = {name: case["status"] for (_, name), case in world.cases().items()}
        name = "ops_test " + only.rstrip("$")
        assert cases == {name: "passed" if "Passes" in name else "failed", **({"ops_test exit": expected} if expected else {})}, (at_exit, cases)
    del os.environ["AT_EXIT"]


def test_a_kill_loses_nothing(world):
    process = world.start("--stage", "test", "--only", "Slow|Plain.Passes$")
    while sum(case["status"] == "passed" for case in world.cases().values()) < 2 if (world.output / "results.json").exists() else True:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(1)  # its child may still be writing notes
    done = {name.split()[1] for _, name in world.cases()}
    assert 2 <= len(done) < 5, done
    world.run("--stage", "test", "--only", "Slow|Plain.Passes$", expected=0)
    assert len(world.cases()) == 5
    for name in done:  # not done again; the one under way may have been
        assert world.ran().count(name) == 1, (name, world.ran())

    # A signal that can be caught ends what is under way, and the summary comes.
    process = world.start("--stage", "test", "--again", "--only", "Hangs")
    while "Plain.Hangs" not in world.ran():
        time.sleep(0.02)
    process.terminate()
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM and "NOT COMPLETE" in said, said


def test_time_runs_out_and_the_next_call_goes_on(world):
    only = "Slow|Plain.Passes$"
    os.environ["SLOW_SECONDS"] = "2.5"  # on a busy machine, too, something is done in the 7 seconds, and not all
    said = world.run("--stage", "test", "--only", only, "--minutes", 7 / 60, expected=3)
    del os.environ["SLOW_SECONDS"]
    first = len(world.cases())
    assert 1 <= first < 5 and re.search(rf"NOT COMPLETE: {5 - first} cases left", said), said
    # A call elsewhere, from the file that came back.
    (world.folder / "back.json").write_text((world.output / "results.json").read_text())
    shutil.rmtree(world.output)
    shutil.rmtree(world.root / "build")
    world.run("--stage", "test", "--only", only, "--from", world.folder / "back.json", expected=0)
    assert len(world.cases()) == 5
    # Where the output's folder is emptied between calls, the copy in build/gpu_check is found.
    ran = len(world.ran())
    shutil.rmtree(world.output)
    world.run("--stage", "test", "--only", only, expected=0)
    assert len(world.ran()) == ran and len(world.cases()) == 5


def test_the_newest_result_of_each_case_counts(world):
    world.run("--stage", "test", "--only", "Plain.(Passes|Passes2)$", expected=0)
    back = json.loads((world.output / "results.json").read_text())
    for case, seconds, date in zip(back["cases"], (11, 12), ("2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z")):
        case.update(seconds=seconds, date=date)
    (world.folder / "back.json").write_text(json.dumps(back))
    world.run("--stage", "test", "--only", "Plain.Passes3$", expected=0)
    said = world.run("--stage", "test", "--only", "Plain.Passes", "--from", world.folder / "back.json", expected=0)
    assert "back.json: 2 cases" in said or "back.json: 1 cases" in said, said
    for path in (world.output, world.root / "build/gpu_check"):
        cases = {case["name"]: case for case in json.loads((path / "results.json").read_text())["cases"]}
        assert cases["ops_test Plain.Passes"]["seconds"] != 11 and cases["ops_test Plain.Passes2"]["seconds"] == 12, cases
        assert "ops_test Plain.Passes3" in cases
    assert len(world.ran()) == 3

    # A new output begins with the copy's cases, and says so. Of programs elsewhere, results are set aside, each under a name of its own.
    world.output = world.folder / "output2"
    assert "gpu_check/results.json: 3 cases" in world.run("--stage", "test", "--only", "Plain.Passes$", expected=0)
    for name in ("b", "c", "binaries", "b", "binaries"):
        if not (world.folder / name).exists():
            shutil.copytree(world.folder / "binaries", world.folder / name)
        world.run("--stage", "test", "--only", "Plain.Passes$", "--binaries", world.folder / name, expected=0)
    assert len(list(world.output.glob("results.*H100*.json"))) == 5


def test_other_sources_and_damaged_files(world):
    world.run("--stage", "test", "--only", "Plain.Passes$", expected=0)
    (world.root / "src/a.cpp").write_text("int b;\n")
    said = world.run("--stage", "test", "--only", "Plain.Passes2", expected=0)
    assert "not used" in said and set(world.cases()) == {("test", "ops_test Plain.Passes2")}
    assert len(list(world.output.glob("results.*H100*.json"))) == 1
    (world.output / "results.json").write_text("{")
    assert "is not a results.json" in world.run("--stage", "test", expected=1)


def test_the_other_stages(world):
    stages = [part for stage in ("build", "sanitize", "bench", "train", "peer") for part in ("--stage", stage)]
    said = world.run(*stages, "--steps", "40", expected=1)
    cases = world.cases()
    assert status(cases, "build", "*") == "skipped"
    assert status(cases, "sanitize", "memcheck Pool, smallest cases") == status(cases, "sanitize", "racecheck Pool, smallest cases") == "passed"
    bad = cases["sanitize", "initcheck Pool, smallest cases"]
    assert bad["status"] == "failed" and bad["summary"] == "3 errors" and "Uninitialized" in bad["said"] and bad["tests"] == 2, bad
    assert cases["bench", "ops bfloat16 pool/backward/T4 (x)"]["GB/s"] == 1500
    packed = cases["bench", "ops bfloat16 packed/forward/N4"]
    assert packed["status"] == "skipped" and packed["why"] == "no CUDA kernel of this operator", packed
    assert status(cases, "bench", "ops float32 pool/forward/T4 (x)") == "passed" and status(cases, "bench", "ops float32 pool/backward/T4 (x)") == "failed"
    assert status(cases, "bench", "train_step --shape small --rows 4 --bytes 1024") == "passed"
    entropies = {name: case["result"]["bytes_per_s"] for (stage, name), case in cases.items() if name.startswith("entropies")}
    assert sorted(entropies.values()) == [3, 3, 9], entropies
    assert next(case for (_, name), case in cases.items() if name.startswith("loader wait"))["result"]["live_cost"]["median"] == 0.05
    beside = {name: case for (_, name), case in cases.items() if name.startswith("beside_torch")}
    assert [case["status"] for case in beside.values()] == ["passed", "skipped", "passed"] and "does not fit" in list(beside.values())[1]["why"], beside
    assert [case["result"]["cases"]["with_text"] for case in beside.values() if "result" in case] == [0, 1], beside
    assert cases["train", "cuda float32, 40 steps"]["losses"][:2] == [5, 4.9]
    assert status(cases, "train", "losses of cuda float32 beside cpu float32, 40 steps") == "passed"
    for division in ("none and replicated", "zero1 and replicated", "zero2 and sharded", "zero3 and sharded"):
        as_one_rank = f"cuda float32 as one rank, {division} tables"
        assert status(cases, "train", f"losses of {as_one_rank} beside cuda float32, 40 steps") == "passed"
        command = cases["train", f"{as_one_rank}, 40 steps"]["command"]
        assert "torch.distributed.run" in command and f"parallel.sharding={division.split()[0]}" in command, command
    assert status(cases, "train", "losses of cuda bfloat16 beside cpu float32, 40 steps") == "failed"
    assert cases["peer", "port train small float32 4 1024"]["result"]["transformers"] == "5.17.0"
    assert status(cases, "peer", "libblt train small float32 4 1024") == "passed"
    assert cases["peer", "libblt train 400m bfloat16 4 4096"]["why"] == "bench/train_step does not have this shape or type yet"
    assert status(cases, "peer", "port train 1b bfloat16 2 4096") == "passed" and "does not fit" in cases["peer", "port train 1b bfloat16 4 4096"]["why"]
    assert cases["peer", "ratio train small float32 4 1024"]["bytes_per_s_ratio"] == 5.6, cases["peer", "ratio train small float32 4 1024"]
    assert ("peer", "ratio train 1b bfloat16 4 4096") not in cases and ("peer", "ratio train 400m bfloat16 4 4096") not in cases
    largest = cases["peer", "largest train 1b bfloat16"]
    assert (largest["cell"], largest["batch_bytes"], largest["bytes_per_s_ratio"], largest["memory_ratio"]) == ("train 1b bfloat16 2 4096", 8192, 2.8, 0.6), largest
    assert largest["goals"] == {"bytes_per_s_ratio": [4, False], "memory_ratio": [0.5, False], "model_flop_utilisation": [0.4, False]}, largest
    assert "largest train 1b bfloat16: 2.80 times the port's bytes/s, 0.60 of its memory (bytes_per_s_ratio 4 missed" in said, said
    assert "1500" in said and "train: cuda float32, 40 steps: 10 bytes/s" in said


def test_what_the_sanitizer_ran(world):
    arguments = ("--stage", "sanitize", "--again", "--only", "(mem|race)check Pool")
    for skips, expected, why in (("2", "skipped", "ran 0 of 2: no device of this kind"), ("1", "passed", "ran 1 of 2: no device of this kind"),
                                 ("0", "passed", None)):
        os.environ["SANITIZER_SKIPS"] = skips
        world.run(*arguments, expected=0)
        for check in ("memcheck", "racecheck"):
            case = world.cases()["sanitize", f"{check} Pool, smallest cases"]
            assert (case["status"], case.get("why"), case["tests_ran"]) == (expected, why, 2 - int(skips)), case
    # A large suite comes in pieces, and each test has the limit to itself.
    os.environ.update(MANY="1", SANITIZER_SECONDS="0.3")
    world.run("--stage", "sanitize", "--again", "--only", "racecheck Many", "--case-seconds", "2", expected=0)
    for name in ("MANY", "SANITIZER_SECONDS", "SANITIZER_SKIPS"):
        del os.environ[name]
    assert {name: case["tests_ran"] for (_, name), case in world.cases().items()} == {
        "racecheck Many, smallest cases": 6, "racecheck Many, cases 7 to 18": 12, "racecheck Many, cases 19 to 30": 12}


def test_what_was_missing_is_looked_at_again(world):
    stages = ("--stage", "test", "--stage", "bench", "--stage", "peer", "--only", "Plain.Passes$|small")
    good = {name: (world.folder / f"binaries/{name}").read_text() for name in ("bin/ops_test", "bench/ops", "bench/train_step")}
    for name in ("bin/ops_test", "bench/ops"):
        world.script(f"binaries/{name}", "raise SystemExit(127)")
    (world.folder / "binaries/bench/train_step").unlink()
    world.run(*stages, expected=1)
    cases = world.cases()
    assert status(cases, "test", "ops_test *") == status(cases, "bench", "ops *") == "failed"
    assert "not built" in cases["peer", "libblt train small float32 4 1024"]["why"]
    for name in ("bench/ops", "bin/ops_test"):
        (world.folder / f"binaries/{name}").write_text(good[name])
    world.run(*stages, expected=0)
    assert cases_of_train_step(world) == {"skipped"}
    world.script("binaries/bench/train_step", TRAIN_STEP)
    world.run(*stages, expected=0)
    cases = world.cases()
    assert cases_of_train_step(world) == {"passed"} and status(cases, "peer", "libblt train small float32 4 1024") == "passed"
    assert not [name for _, name in cases if name.endswith("*")] and status(cases, "test", "ops_test Plain.Passes") == "passed"


def cases_of_train_step(world):
    return {case["status"] for (_, name), case in world.cases().items() if name.startswith("train_step")}


def test_losses_beside_each_other(world):
    os.environ.update(SLOW_CPU="1", RANK_IS_OFF="0.001")
    world.run("--stage", "train", "--steps", "40", "--case-seconds", "3", "--only", "float32", expected=1)
    cases = world.cases()
    cpu = cases["train", "cpu float32, 40 steps"]
    assert cpu["status"] == "passed" and cpu["why"] == "25 steps in its time" and len(cpu["losses"]) == 25, cpu
    beside = cases["train", "losses of cuda float32 beside cpu float32, 40 steps"]
    assert beside["status"] == "passed" and beside["compared_steps"] == 25, beside
    rank = cases["train", "losses of cuda float32 as one rank, zero3 and sharded tables beside cuda float32, 40 steps"]
    assert rank["status"] == "failed" and 1e-4 < rank["first_10_steps"] < 3e-4 and rank["compared_steps"] == 40, rank
    for name in ("SLOW_CPU", "RANK_IS_OFF"):
        del os.environ[name]


def test_stages_keep_the_order_they_are_given_in(world):
    said = world.run("--stage", "peer", "--stage", "bench", "--stage", "test", "--stage", "bench", "--only", "nothing", expected=0)
    assert re.findall("^== (.*)", said, re.M) == ["peer", "bench", "test"], said


def test_without_a_device(world):
    # nvidia-smi may be there on this machine: hide it behind one that knows no device.
    world.script("machine/nvidia-smi", "raise SystemExit(9)")
    world.run("--only", "Plain.Passes$|steps", "--steps", "30", expected=0)
    cases = world.cases()
    assert {stage for stage, name in cases if name == "*"} == {"build", "sanitize", "bench", "peer"}
    assert all("no CUDA device" in cases[stage, "*"]["why"] for stage in ("sanitize", "bench", "peer"))
    assert status(cases, "train", "cpu float32, 30 steps") == "passed"
    assert cases["train", "cuda float32, 30 steps"]["why"] == "no CUDA device"


def test_it_understands_googletest(world):
    real = world.folder / "real/bin"
    real.mkdir(parents=True)
    (real / "ops_test").symlink_to(real_build / "bin/ops_test")
    world.script("machine/nvidia-smi", "raise SystemExit(9)")
    world.run("--stage", "test", "--binaries", world.folder / "real", "--only", r"SegmentPool.*(/max_N13_P5_C3|RefusesWhatDoesNotFit)", expected=0)
    cases = world.cases()
    assert status(cases, "test", "ops_test SegmentPool/OpTest.EqualsReference/max_N13_P5_C3") == "passed"
    assert status(cases, "test", "ops_test SegmentPool.RefusesWhatDoesNotFit") == "passed"
    on_device = cases["test", "ops_test SegmentPool/OpTest.CudaEqualsReference/max_N13_P5_C3"]
    assert on_device["status"] == "passed" or on_device["why"] == "no CUDA device", on_device
    assert len(cases) >= 10, cases.keys()


def test_blt_train_takes_its_settings(world):
    real = world.folder / "real/bin"
    real.mkdir(parents=True)
    (real / "blt_train").symlink_to(real_build / "bin/blt_train")
    world.script("machine/nvidia-smi", "raise SystemExit(9)")
    text = world.folder / "real.txt"
    text.write_text("".join(path.read_text() for path in sorted((repository / "docs").glob("*.md"))))
    world.run("--stage", "train", "--binaries", world.folder / "real", "--data", text, "--steps", "8", expected=0)
    assert len(world.cases()["train", "cpu float32, 8 steps"]["losses"]) == 8


for name, test in list(globals().items()):
    if name.startswith("test_") and (len(sys.argv) < 4 or name in sys.argv[3:]):
        with tempfile.TemporaryDirectory() as temporary:
            test(World(pathlib.Path(temporary)))
        print(f"{name[5:]}: ok", flush=True)
