// Rows that a disk does not take wait, in their order, and nobody waits with them.
#include "train/row_writer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "blt/base/error.h"

namespace blt {
namespace {

struct Disk {
  std::atomic<bool> hangs{false}, is_full{false};
  std::atomic<int> written{0};
  std::string lines;
  size_t events = 0;
};

// It outlives the writer: what hangs does too.
RowWriter writer_on(const std::shared_ptr<Disk>& disk) {
  return {"metrics.jsonl",
          [disk](Rows& rows) {
            while (disk->hangs) std::this_thread::sleep_for(std::chrono::milliseconds(5));
            if (disk->is_full) throw Error("no space");
            disk->lines += rows.lines;
            disk->events += rows.events.size();
            rows = {};
            ++disk->written;
          },
          std::chrono::milliseconds(500)};
}

TEST(RowWriter, DoesNotWaitForADiskThatHangs) {
  const auto disk = std::make_shared<Disk>();
  RowWriter writer = writer_on(disk);
  EXPECT_EQ(writer.write({.lines = "1\n"}), "");
  disk->hangs = true;
  const std::string late = "metrics.jsonl: the disk has not answered within 0.5 s";
  EXPECT_EQ(writer.write({.lines = "2\n"}), late);
  const auto start = std::chrono::steady_clock::now();
  for (const char* line : {"3\n", "4\n"}) EXPECT_EQ(writer.write({.lines = line}), late);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(500)) << "once is enough";
  disk->hangs = false;
  while (disk->written < 2) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(writer.write({.lines = "5\n", .events = {{5, {{"loss", 1.0}}}}}), "");
  EXPECT_EQ(disk->lines, "1\n2\n3\n4\n5\n");
  EXPECT_EQ(disk->events, 1u);
}

TEST(RowWriter, KeepsWhatADiskDoesNotTake) {
  const auto disk = std::make_shared<Disk>();
  {
    RowWriter writer = writer_on(disk);
    disk->is_full = true;
    for (const char* line : {"1\n", "2\n"}) EXPECT_EQ(writer.write({.lines = line}), "no space");
    disk->is_full = false;
    EXPECT_EQ(writer.write({.lines = "3\n"}), "");
    EXPECT_EQ(disk->lines, "1\n2\n3\n");
    disk->is_full = true;
    EXPECT_EQ(writer.write({.lines = "4\n"}), "no space");
    disk->is_full = false;
  }
  EXPECT_EQ(disk->lines, "1\n2\n3\n4\n") << "tried once more in the end";
}

}  // namespace
}  // namespace blt
