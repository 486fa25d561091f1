#include "blt/base/files.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "base/example_config.h"

namespace blt_test {

namespace {

namespace fs = std::filesystem;

TEST(Files, ReadsWhatWasWritten) {
  const TemporaryFolder folder;
  std::string content = "zero \0 and\r\nlines";
  content.append(200000, 'x');
  blt::write_file(folder / "a", content);
  EXPECT_EQ(blt::read_file(folder / "a"), content);
  blt::write_file(folder / "a", "");
  EXPECT_EQ(blt::read_file(folder / "a"), "");
  EXPECT_EQ(folder.num_entries(), 1u);
}

TEST(Files, ErrorsNameThePathAndTheReason) {
  const TemporaryFolder folder;
  EXPECT_EQ(error_of([&] { blt::read_file(folder / "none"); }),
            (folder / "none").string() + ": cannot read: No such file or directory");
  EXPECT_EQ(error_of([&] { blt::write_file(folder / "none" / "a", "x"); }),
            (folder / "none" / "a").string() + ": cannot write: No such file or directory");
  EXPECT_EQ(error_of([&] { blt::write_file(folder.path(), "x"); }),
            folder.path().string() + ": cannot write: Is a directory");
}

TEST(AtomicFile, WithoutCommitTheOldOneStays) {
  const TemporaryFolder folder;
  blt::write_file(folder / "a", "old");
  {
    blt::AtomicFile file(folder / "a");
    file.write("new");
    EXPECT_EQ(blt::read_file(folder / "a"), "old");
  }
  EXPECT_EQ(blt::read_file(folder / "a"), "old");
  EXPECT_EQ(folder.num_entries(), 1u);
}

TEST(AtomicFile, WritesIntoThingsThatAreNoFiles) {
  blt::write_file("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_EQ(error_of([] { blt::write_file("/dev/full", "x"); }),
            "/dev/full: cannot write: No space left on device");
}

// In a process of its own, since the limit cannot be raised again.
void write_past_the_limit(const fs::path& folder) {
  const rlimit limit = {4096, 4096};
  signal(SIGXFSZ, SIG_IGN);
  if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(98);
  try {
    blt::write_file(folder / "a", std::string(10000, 'x'));
  } catch (const blt::Error& e) {
    const bool is_clear = std::string(e.what()) == (folder / "a").string() + ": cannot write: File too large";
    const auto entries = fs::directory_iterator(folder);
    const bool is_clean = std::distance(begin(entries), end(entries)) == 1;
    _exit(is_clear && is_clean && blt::read_file(folder / "a") == "old" ? 0 : 1);
  }
  _exit(2);
}

TEST(FilesDeathTest, AFileThatDoesNotFitLeavesTheOldOne) {
  const TemporaryFolder folder;
  blt::write_file(folder / "a", "old");
  EXPECT_EXIT(write_past_the_limit(folder.path()), testing::ExitedWithCode(0), "");
  EXPECT_EQ(blt::read_file(folder / "a"), "old");
}

TEST(AtomicDirectory, AppearsWhole) {
  const TemporaryFolder folder;
  {
    blt::AtomicDirectory directory((folder / "run").string() + "/");
    fs::create_directory(directory.path() / "inner");
    blt::write_file(directory.path() / "inner" / "a", "new");
    EXPECT_FALSE(fs::exists(folder / "run"));
    directory.commit();
  }
  EXPECT_EQ(blt::read_file(folder / "run" / "inner" / "a"), "new");
  EXPECT_EQ(folder.num_entries(), 1u);
}

TEST(AtomicDirectory, ReplacesTheOldOneAsAWhole) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "run");
  blt::write_file(folder / "run" / "old", "old");
  {
    blt::AtomicDirectory directory(folder / "run");
    blt::write_file(directory.path() / "new", "new");
    EXPECT_EQ(blt::read_file(folder / "run" / "old"), "old");
    directory.commit();
  }
  EXPECT_EQ(blt::read_file(folder / "run" / "new"), "new");
  EXPECT_FALSE(fs::exists(folder / "run" / "old"));
  EXPECT_EQ(folder.num_entries(), 1u);
}

TEST(AtomicDirectory, WithoutCommitTheOldOneStays) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "run");
  {
    blt::AtomicDirectory directory(folder / "run");
    blt::write_file(directory.path() / "new", "new");
  }
  EXPECT_TRUE(fs::is_empty(folder / "run"));
  EXPECT_EQ(folder.num_entries(), 1u);
  EXPECT_EQ(error_of([&] { blt::AtomicDirectory directory(folder / "none" / "run"); }),
            (folder / "none" / "run").string() + ": cannot write: No such file or directory");
}

TEST(Files, ByteCountsAreReadable) {
  EXPECT_EQ(blt::format_bytes(0), "0 bytes");
  EXPECT_EQ(blt::format_bytes(1), "1 byte");
  EXPECT_EQ(blt::format_bytes(1023), "1023 bytes");
  EXPECT_EQ(blt::format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(blt::format_bytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(blt::format_bytes(UINT64_MAX), "16384.0 PiB");
}

}  // namespace

}  // namespace blt_test
