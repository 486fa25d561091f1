"""What the tools do on a terminal, in a narrow window, with NO_COLOR, on a terminal without escapes, and in a pipe.

    python terminal_test.py BIN_DIR
"""
import fcntl
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

CONFIG = """
output: out
data:
  sources: [{paths: [train.txt]}]
  validation: [{paths: [train.txt]}]
  sequence_bytes: 128
  batch_bytes: 512
patching: {rule: {kind: space}}
model:
  local_dim: 16
  ngram: {sizes: [3], rows: 100}
  local_encoder: {layers: 1, heads: 2}
  latent_transformer: {dim: 32, layers: 1, heads: 2}
  local_decoder: {layers: 1, heads: 2}
train: {steps: 40, log_every: 1, eval_every: 20, checkpoint_every: 20}
"""
COLOR = re.compile(r"\x1b\[[0-9;]*m")
ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
BINARIES = pathlib.Path(sys.argv.pop(1)).resolve()


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if name not in ("TERM", "NO_COLOR")}
    return {**kept, "TERM": "xterm-256color", **changes}


def on_terminal(command, columns=80, send=None, **changes):
    """Runs a command on a terminal of its own. Gives its exit code and all that it wrote there.

    send: (pattern, keys): types the keys once something like it has been written.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def own_terminal():  # so that Ctrl-C reaches the command
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen([BINARIES / command[0], *command[1:]], stdin=slave, stdout=slave, stderr=slave,
                               env=environment(**changes), preexec_fn=own_terminal, close_fds=True)
    os.close(slave)
    written = b""
    end = time.monotonic() + 120
    while True:
        if not select.select([master], [], [], end - time.monotonic())[0]:
            process.kill()
            raise TimeoutError(f"{command[0]} does not end: {written.decode(errors='replace')}")
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # the command has closed its end
            break
        if not piece:
            break
        written += piece
        if send and re.search(send[0], written):
            os.write(master, send[1])
            send = None
    os.close(master)
    return process.wait(), written.decode(errors="replace").replace("\r\n", "\n")


def rewritten(line):
    """The texts that stood in one line of the terminal, one after the other."""
    return [ESCAPE.sub("", text) for text in line.split("\r") if text]


class Terminal(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="blt_terminal_")
        self.addCleanup(folder.cleanup)
        os.chdir(folder.name)
        pathlib.Path("train.txt").write_text("a patch of bytes, and the next one | or \\ \n" * 200)
        pathlib.Path("run.yaml").write_text(CONFIG)

    def train(self, columns=80, send=None, settings=(), **changes):
        return on_terminal(["blt_train", "run.yaml", *settings], columns, send, **changes)

    def test_progress_is_one_line_that_fits_the_window(self):
        for columns in (80, 40, 20):
            code, text = self.train(columns, settings=[f"output=out{columns}"])
            self.assertEqual(code, 0, text)
            progress = [line for line in text.split("\n") if "\r" in line]
            # Held-out bits stand in lines of their own, and end the line that was being rewritten.
            self.assertLessEqual(len(progress), 3, text)
            drawn = [shown for line in progress for shown in rewritten(line)]
            self.assertEqual(sum(shown.startswith("step ") for shown in drawn), 40, text)
            self.assertLess(max(map(len, drawn)), columns, text)
            self.assertEqual(len(re.findall(r"^step \d+: held-out bits/byte \d\.\d+$", text, re.M)), 2, text)

    def test_without_escapes_there_is_a_line_for_each_step(self):
        code, text = self.train(TERM="dumb")
        self.assertEqual(code, 0, text)
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\r", text)
        self.assertEqual(len(re.findall(r"^step +\d+/40  loss ", text, re.M)), 40, text)

    def test_progress_in_a_pipe(self):
        run = subprocess.run([BINARIES / "blt_train", "run.yaml"], env=environment(), capture_output=True)
        text = run.stderr.decode()
        self.assertEqual(run.returncode, 0, text)
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\r", text)
        self.assertEqual(len(re.findall(r"^step +\d+/40  loss ", text, re.M)), 40, text)

    def test_ctrl_c_saves_and_says_where(self):
        code, text = self.train(send=(rb"step +5/", b"\x03"), settings=["train.steps=100000"])
        self.assertEqual(code, 3, text)
        self.assertIn("^C\nstopping: ", text)  # in a line of its own
        saved = re.search(r"^\S+ \S*info\S* saved (\S+/out/step_\d+)$", text, re.M)
        self.assertIsNotNone(saved, text)
        self.assertTrue((pathlib.Path(saved[1]) / "trainer_state.json").exists(), text)

    def test_ctrl_c_keeps_the_entropies_that_are_there(self):
        lines = [f"a patch of bytes, and the next one | or \\ {number}\n" for number in range(10000)]
        pathlib.Path("train.txt").write_text("".join(lines))
        settings = ["data.entropy_cache.folder=cache"]
        trained = ["model=null", "entropy_model={kind: train, model: {dim: 64, layers: 2, heads: 2}, train: {steps: 1}}",
                   "patching.rule.kind=entropy"]
        code, text = self.train(settings=["train.eval_every=0", *trained])
        self.assertEqual(code, 0, text)
        command = ["blt_data", "entropies", "run.yaml", "--model", "out/entropy_model/latest", "data.validation=[]",
                   "data.shuffle_sequences=0", *settings]
        code, text = on_terminal(command, columns=200, send=(rb"of text", b"\x03"))
        self.assertEqual(code, 3, text)
        self.assertIn("stopped; the next run goes on from here", text)
        counts = re.compile(r"(\d+) sequences, (\d+) of them were there already")
        done, there = map(int, counts.findall(text)[-1])
        self.assertEqual(there, 0, "every sequence of the text is another")
        self.assertGreater(done, 0)
        code, text = on_terminal(command, columns=200)
        self.assertEqual(code, 0, text)
        total, there = map(int, counts.findall(text)[-1])
        self.assertGreater(total, done, "it was stopped before its end")
        self.assertGreaterEqual(there, done)

    def test_no_color_has_progress_without_colours(self):
        code, text = self.train(NO_COLOR="1")
        self.assertEqual(code, 0, text)
        self.assertNotRegex(text, COLOR)
        self.assertIn("\x1b[K", text)

    def test_patches_have_colours_only_where_they_can_be_seen(self):
        command = ["blt_patch", "--mode", "space", "train.txt"]
        code, text = on_terminal(command)
        self.assertEqual(code, 0, text)
        self.assertRegex(text, COLOR)
        # Every line ends without a colour, so that nothing after it has one.
        for line in text.split("\n"):
            codes = COLOR.findall(line)
            self.assertTrue(not codes or codes[-1] in ("\x1b[0m", "\x1b[m"), repr(line))
        plain = {}
        for name, changes in {"NO_COLOR": {"NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}}.items():
            code, plain[name] = on_terminal(command, **changes)
            self.assertEqual(code, 0, plain[name])
            self.assertNotIn("\x1b", plain[name])
        piped = subprocess.run([BINARIES / command[0], *command[1:]], env=environment(), capture_output=True)
        plain["pipe"] = piped.stdout.decode()
        self.assertNotIn("\x1b", plain["pipe"])
        self.assertIn("|", plain["pipe"])
        self.assertEqual(plain["NO_COLOR"], plain["dumb"])
        # An empty NO_COLOR counts as none (no-color.org).
        self.assertRegex(on_terminal(command, NO_COLOR="")[1], COLOR)

    def test_inspected_batches_have_the_same_colours(self):
        command = ["blt_data", "inspect", "run.yaml"]
        code, text = on_terminal(command)
        self.assertEqual(code, 0, text)
        self.assertGreaterEqual(len(set(COLOR.findall(text))), 3, "two colours that take turns, and none")
        piped = subprocess.run([BINARIES / command[0], *command[1:]], env=environment(), capture_output=True)
        plain = piped.stdout.decode()
        self.assertNotIn("\x1b", plain)
        self.assertIn("|", plain)
        self.assertEqual(on_terminal(command, NO_COLOR="1")[1], plain)
        # Nothing but the marks of where a patch ends differs.
        words = re.findall(r"\w+", ESCAPE.sub("", text))
        self.assertEqual("".join(words), "".join(re.findall(r"\w+", plain)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
