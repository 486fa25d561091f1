#include "blt/data/entropy_cache.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <iostream>
#include <set>
#include <thread>

#include "blt/base/files.h"
#include "blt/base/rng.h"
#include "data/cache_shard.h"
#include "fakes.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
namespace fs = std::filesystem;

// Entropies that follow from the number, of other lengths for other numbers, with odd floats among them.
std::vector<float> entropies_of(uint64_t number) {
  Rng rng(number, "entropies");
  std::vector<float> result(rng.below(40));
  for (float& value : result) {
    const auto bits = static_cast<uint32_t>(rng.next());
    std::memcpy(&value, &bits, sizeof value);
  }
  return result;
}
EntropyKey key_of(uint64_t number) { return {{Rng(number, "key").next(), number}}; }

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
void add(EntropyCache& cache, uint64_t number) { cache.add(key_of(number), entropies_of(number)); }
// Whether it is there, and then right.
bool has(EntropyCache& cache, uint64_t number) {
  const std::vector<float> expected = entropies_of(number);
  const auto found = cache.find(key_of(number), expected.size());
  if (found) {
    EXPECT_TRUE(same_bits(*found, expected)) << number;
  }
  return found.has_value();
}
int count_of(EntropyCache& cache, uint64_t numbers) {
  int count = 0;
  for (uint64_t i = 0; i < numbers; ++i) count += has(cache, i) ? 1 : 0;
  return count;
}
fs::path only_file(const fs::path& folder, const std::string& extension) {
  fs::path found;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == extension) {
      EXPECT_TRUE(found.empty()) << "more than one";
      found = entry.path();
    }
  EXPECT_FALSE(found.empty()) << extension;
  return found;
}

TEST(EntropyKey, DependsOnIdentityAndIds) {
  std::set<std::array<uint64_t, 2>> keys;
  for (const std::string identity : {"", "a", "ab"})
    for (const std::vector<int32_t>& ids :
         std::vector<std::vector<int32_t>>{{1}, {1, 0}, {1, 2}, {2, 1}, {1, 2, 3}})
      keys.insert(EntropyKey::of(identity, ids).words);
  EXPECT_EQ(keys.size(), 15u);
}

TEST(MemoryEntropyCache, KeepsWhatFits) {
  const auto cache = EntropyCache::in_memory(5000);
  for (uint64_t i = 0; i < 100; ++i) {
    EXPECT_FALSE(has(*cache, i));
    add(*cache, i);
  }
  const int count = count_of(*cache, 100);
  EXPECT_GT(count, 15);
  EXPECT_LT(count, 40);
  EXPECT_FALSE(cache->find(key_of(0), entropies_of(0).size() + 1)) << "another length is another sequence";
}

TEST(DiskEntropyCache, GivesBackWhatWasAddedInThisRunAndTheNext) {
  const TemporaryFolder folder;
  for (int run = 0; run < 3; ++run) {
    const auto cache = EntropyCache::on_disk(folder / "cache");
    const uint64_t before = 100 * static_cast<uint64_t>(run);
    EXPECT_EQ(count_of(*cache, 300), run * 100);
    for (uint64_t i = before; i < before + 100; ++i) add(*cache, i);
    EXPECT_EQ(count_of(*cache, 300), (run + 1) * 100);
  }
}

TEST(DiskEntropyCache, NeedsNoIndex) {
  const TemporaryFolder folder;
  {
    const auto cache = EntropyCache::on_disk(folder.path());
    for (uint64_t i = 0; i < 50; ++i) add(*cache, i);
  }
  const fs::path index = only_file(folder.path(), ".index");
  const std::string whole = read_file(index);
  for (size_t damage = 0; damage < whole.size(); damage += 7) {
    std::string damaged = whole;
    damaged[damage] = static_cast<char>(damaged[damage] ^ 0x10);
    folder.write(index.filename(), damaged);
    EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 50), 50) << damage;
  }
  folder.write(index.filename(), whole.substr(0, whole.size() - 24));
  EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 50), 50);
  fs::remove(index);
  EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 50), 50);
}

TEST(DiskEntropyCache, AShardCutAnywhereLosesWhatFollowsAndNothingIsWrong) {
  const TemporaryFolder folder;
  {
    const auto cache = EntropyCache::on_disk(folder.path());
    for (uint64_t i = 0; i < 8; ++i) add(*cache, i);
  }
  const fs::path shard = only_file(folder.path(), ".entropies");
  fs::remove(only_file(folder.path(), ".index"));
  const std::string whole = read_file(shard);
  int last = 8;
  for (size_t size = whole.size(); size-- > 0;) {
    fs::resize_file(shard, size);
    const int count = count_of(*EntropyCache::on_disk(folder.path()), 8);
    EXPECT_LE(count, last);
    last = count;
  }
  EXPECT_EQ(last, 0);
}

TEST(DiskEntropyCache, AFlippedBitIsNeverUsedAndIsComputedAgain) {
  const TemporaryFolder folder;
  {
    const auto cache = EntropyCache::on_disk(folder.path());
    for (uint64_t i = 0; i < 8; ++i) add(*cache, i);
  }
  const fs::path shard = only_file(folder.path(), ".entropies"), index = only_file(folder.path(), ".index");
  const std::string whole = read_file(shard), whole_index = read_file(index);
  testing::internal::CaptureStderr();  // warnings
  for (const bool indexed : {false, true})
    for (size_t damage = 16; damage < whole.size(); damage += indexed ? 11 : 3) {
      std::string damaged = whole;
      damaged[damage] = static_cast<char>(damaged[damage] ^ 1 << damage % 8);
      folder.write(shard.filename(), damaged);
      if (indexed)
        folder.write(index.filename(), whole_index);
      else
        fs::remove(index);
      {
        const auto cache = EntropyCache::on_disk(folder.path());
        EXPECT_LT(count_of(*cache, 8), 8) << damage;
        for (uint64_t i = 0; i < 8; ++i)
          if (!has(*cache, i)) add(*cache, i);
        EXPECT_EQ(count_of(*cache, 8), 8) << damage;
      }
      EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 8), 8) << "the younger file's counts";
      for (const auto& entry : fs::directory_iterator(folder.path()))
        if (entry.path() != shard && entry.path() != index) fs::remove(entry.path());
    }
  testing::internal::GetCapturedStderr();
}

TEST(DiskEntropyCache, OtherFilesInTheFolderDoNotMatter) {
  const TemporaryFolder folder;
  folder.write("a.entropies", "something else, of more than a header's length");
  folder.write("b.entropies", "");
  folder.write("b.index", "");
  folder.write("notes.txt", "x");
  const auto cache = EntropyCache::on_disk(folder.path());
  add(*cache, 1);
  EXPECT_TRUE(has(*cache, 1));
  EXPECT_MESSAGE(EntropyCache::on_disk(folder / "notes.txt"), "the folder for entropies cannot be made");
}

TEST(DiskEntropyCache, StopsAtItsLimit) {
  const TemporaryFolder folder;
  testing::internal::CaptureStderr();
  const auto cache = EntropyCache::on_disk(folder.path(), 3000);
  for (uint64_t i = 0; i < 100; ++i) add(*cache, i);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("has reached its limit"), std::string::npos);
  EXPECT_GT(count_of(*cache, 100), 10);
  EXPECT_LE(fs::file_size(only_file(folder.path(), ".entropies")), 3000u + 32);
}

TEST(DiskEntropyCache, AFullDiskEndsTheWritingAndNothingElse) {
  const TemporaryFolder folder;
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 2000;
  setrlimit(RLIMIT_FSIZE, &small);
  testing::internal::CaptureStderr();
  {
    const auto cache = EntropyCache::on_disk(folder.path());
    for (uint64_t i = 0; i < 100; ++i) add(*cache, i);
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_GT(count_of(*cache, 100), 5);
  }
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(testing::internal::GetCapturedStderr().find("the disk is full?"), std::string::npos);
  EXPECT_GT(count_of(*EntropyCache::on_disk(folder.path()), 100), 5);
}

TEST(DiskEntropyCache, ThreadsMayShareOne) {
  const TemporaryFolder folder;
  const auto cache = EntropyCache::on_disk(folder.path());
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      Rng rng(t, "thread");
      for (int i = 0; i < 500; ++i) {
        const uint64_t number = rng.below(200);
        if (!has(*cache, number)) add(*cache, number);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count_of(*cache, 200), 200);
}

// The process writes until it is killed.
[[noreturn]] void write_for_ever(const fs::path& folder, uint64_t first) {
  const auto cache = EntropyCache::on_disk(folder);
  for (uint64_t i = first;; ++i) add(*cache, i);
}

int count_files(const fs::path& folder, const std::string& extension) {
  int count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) count += entry.path().extension() == extension;
  return count;
}

TEST(DiskEntropyCache, AHundredWritersThatAreKilledLeaveNothingWrong) {
  const TemporaryFolder folder;
  Rng rng(1, "kill");
  constexpr int kWriters = 100;
  constexpr uint64_t kNumbers = 1000000;  // more than a pair of writers comes to add
  for (int killed = 0; killed < kWriters; killed += 2) {
    std::vector<pid_t> processes;
    for (int p = 0; p < 2; ++p) {
      const pid_t process = ::fork();
      if (process == 0) write_for_ever(folder.path(), kNumbers * static_cast<uint64_t>(killed));
      processes.push_back(process);
    }
    // All of them write when the first is killed.
    while (count_files(folder.path(), ".entropies") < killed + 2) ::usleep(100);
    for (const pid_t process : processes) {
      ::usleep(static_cast<useconds_t>(rng.below(5000)));
      ::kill(process, SIGKILL);
      int status = 0;
      ::waitpid(process, &status, 0);
      ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
  }
  int cut = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    if (entry.path().extension() != ".entropies") continue;
    const auto shard = CacheShard::open(entry.path());
    shard->scan([](const EntropyKey&, uint64_t) {});
    cut += shard->size() < fs::file_size(entry.path()) ? 1 : 0;
  }
  EXPECT_GT(cut, 0) << "some should be killed inside a record";
  const auto cache = EntropyCache::on_disk(folder.path());
  uint64_t found = 0;
  for (uint64_t pair = 0; pair < kWriters; pair += 2)
    for (uint64_t i = 0; has(*cache, kNumbers * pair + i); ++i) ++found;
  EXPECT_GT(found, 1000u);
  std::cout << found << " entries, none wrong; " << cut << " of " << kWriters
            << " files end inside a record\n";
}

// A process that has added the numbers from `first` on, `count` of them, and waits to be killed.
pid_t waiting_writer(const fs::path& folder, uint64_t first, uint64_t count) {
  int done[2] = {};
  EXPECT_EQ(::pipe(done), 0);
  const pid_t process = ::fork();
  if (process == 0) {
    const auto cache = EntropyCache::on_disk(folder);
    for (uint64_t i = first; i < first + count; ++i) add(*cache, i);
    (void)!::write(done[1], "", 1);
    while (true) ::pause();
  }
  char byte = 0;
  EXPECT_EQ(::read(done[0], &byte, 1), 1);
  ::close(done[0]);
  ::close(done[1]);
  return process;
}
void kill_writer(pid_t process) {
  ::kill(process, SIGKILL);
  ::waitpid(process, nullptr, 0);
}

TEST(DiskEntropyCache, TheIndexOfAKilledWriterIsWrittenByTheNextReader) {
  const TemporaryFolder folder;
  kill_writer(waiting_writer(folder.path(), 0, 20));
  const fs::path shard = only_file(folder.path(), ".entropies");
  folder.write(shard.filename(), read_file(shard) + "the beginning of a record that was never finished");
  EXPECT_EQ(count_files(folder.path(), ".index"), 0);
  EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 20), 20);
  EXPECT_EQ(only_file(folder.path(), ".index").stem(), shard.stem());
  // It is read from then on: a scan would end at a first record that is damaged.
  std::string damaged = read_file(shard);
  damaged[16] = static_cast<char>(damaged[16] ^ 1);
  folder.write(shard.filename(), damaged);
  testing::internal::CaptureStderr();
  EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 20), 19);
  testing::internal::GetCapturedStderr();
}

TEST(DiskEntropyCache, AWriterThatLivesWritesItsIndexItself) {
  const TemporaryFolder folder;
  const pid_t writer = waiting_writer(folder.path(), 0, 20);
  EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 20), 20);
  EXPECT_EQ(count_files(folder.path(), ".index"), 0);
  kill_writer(writer);
  EXPECT_EQ(count_of(*EntropyCache::on_disk(folder.path()), 20), 20);
  EXPECT_EQ(count_files(folder.path(), ".index"), 1);
}

TEST(CachedEntropies, GiveWhatTheSourceGives) {
  const TemporaryFolder folder;
  std::vector<std::vector<int32_t>> ids;
  for (const Sequence& sequence : random_sequences(100, 7)) ids.push_back(sequence.ids(true));
  const auto source = std::make_shared<FakeEntropies>();
  const auto expected = source->entropies(ids);
  for (const auto& cache : {EntropyCache::in_memory(1 << 20), EntropyCache::on_disk(folder.path())}) {
    CachedEntropies cached(source, "fake", cache);
    EXPECT_EQ(cached.entropies(ids), expected);
    const int calls = source->calls;
    EXPECT_EQ(cached.entropies(ids), expected);
    EXPECT_EQ(source->calls, calls);
    CachedEntropies other(source, "another model", cache);
    EXPECT_EQ(other.entropies(ids), expected);
    EXPECT_EQ(source->calls, calls + 1);
  }
}

}  // namespace
}  // namespace blt
