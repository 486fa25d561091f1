// A folder with a short run of both models in it, and blt_train on that.
#pragma once

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "tools/run_tool.h"

namespace blt {

class TrainRunTest : public ToolTest {
 protected:
  struct Run {
    std::string entropy_steps = "10", steps = "10";
    std::string data = "";  // more lines of data:, each with its line break
    std::string more = "";  // more sections
  };
  explicit TrainRunTest(const Run& run) {
    std::string text;
    for (int i = 0; i < 400; ++i)
      text += "line " + std::to_string(i * 7919 % 1000) + (i % 3 == 0 ? " of the text\n" : " and so on, ");
    write_content(folder_ / "train.txt", text);
    write_content(folder_ / "valid.txt", text.substr(0, 600));
    write_content(folder_ / "run.yaml", R"(
output: out
data:
  sources: [{paths: [train.txt]}]
  validation: [{paths: [valid.txt]}]
  sequence_bytes: 128
  batch_bytes: 256
  shuffle_sequences: 8
)" + run.data + R"(
entropy_model:
  kind: train
  model: {dim: 16, layers: 1, heads: 2, window: 16, ffn_dim: 32, dropout: 0.1}
  train: {log_every: 1, schedule: {kind: cosine, warmup: 2}, steps: )" +
                                            run.entropy_steps + R"(}
patching: {rule: {kind: entropy, mean_patch_bytes: 4}}
model:
  local_dim: 16
  window: 32
  ngram: {sizes: [3, 4], rows: 500, dropout: 0.1}
  local_encoder: {layers: 1, heads: 2, ffn_dim: 32, dropout: 0.1}
  latent_transformer: {dim: 32, layers: 1, heads: 2, ffn_dim: 64, dropout: 0.1}
  local_decoder: {layers: 1, heads: 2, ffn_dim: 32, dropout: 0.1}
train: {accumulate: 2, log_every: 1, schedule: {kind: wsd, warmup: 2, decay: 0.5}, steps: )" +
                                            run.steps + "}\n" + run.more);
  }

  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  ToolResult train(const std::string& output, const std::string& more = "") const {
    return run("blt_train", file("run.yaml") + " output=" + file(output) + " " + more);
  }

  // blt_train under way, in a shell that becomes it. What it says goes to the file `log`.
  pid_t start(const std::string& arguments) const {
    const std::string command = "exec " BLT_BIN_DIR "/blt_train " + arguments + " > " + file("log") + " 2>&1";
    const char* argv[] = {"sh", "-c", command.c_str(), nullptr};
    pid_t process = -1;
    EXPECT_EQ(posix_spawn(&process, "/bin/sh", nullptr, nullptr, const_cast<char**>(argv), environ), 0);
    return process;
  }
  // Waits until it has ended; as waitpid() gives it.
  static int status_of(pid_t process) {
    int status = 0;
    waitpid(process, &status, 0);
    return status;
  }
};

}  // namespace blt
