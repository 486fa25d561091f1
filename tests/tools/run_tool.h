// Drives a built program as a user does, in a folder of its own.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "file_content.h"

namespace blt {

struct ToolResult {
  int exit_code = -1;  // -1: ended by a signal
  std::string out, err;
};

// A test with a folder that goes with it.
class ToolTest : public testing::Test {
 protected:
  ToolTest() {
    std::string name = (std::filesystem::temp_directory_path() / "blt_tool_test_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "no temporary folder";
    folder_ = name;
    // Output of the program itself goes elsewhere, so that a snapshot of folder_ does not see it.
    streams_ = name + "_streams";
    std::filesystem::create_directory(streams_);
  }
  ~ToolTest() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::remove_all(streams_);
  }

  // arguments: a shell's; the program is one of this build's.
  ToolResult run(const std::string& program, const std::string& arguments,
                 const std::string& input = "") const {
    write_content(streams_ / "in", input);
    const std::string command = std::string(BLT_BIN_DIR) + "/" + program + " " + arguments + " < " +
                                (streams_ / "in").string() + " > " + (streams_ / "out").string() + " 2> " +
                                (streams_ / "err").string();
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) && WEXITSTATUS(status) < 128 ? WEXITSTATUS(status) : -1,
            content_of(streams_ / "out"), content_of(streams_ / "err")};
  }

  std::filesystem::path folder_;

 private:
  std::filesystem::path streams_;
};

}  // namespace blt
