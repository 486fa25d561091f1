// The files of a checkpoint: written in parts, found damaged byte by byte.
#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <torch/torch.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "file_content.h"
#include "message.h"
#include "temporary_folder.h"
#include "train/checkpoint_writer.h"
#include "train/manifest.h"
#include "train/ranks.h"
#include "train/tensor_share.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

std::vector<WholeTensor> some_tensors() {
  torch::manual_seed(1);
  return {{.name = "b", .tensor = torch::randn({7, 11})},
          {.name = "a", .tensor = torch::randn({130}).to(torch::kBFloat16)},
          {.name = "empty", .tensor = torch::zeros({0, 3})},
          {.name = "c", .tensor = torch::randn({1})},
          {.name = "scalar", .tensor = torch::scalar_tensor(3.0)},
          {.name = "d", .tensor = torch::randn({40, 3}), .is_constant = true}};
}

// Every rank's writer, one after the other, as threads of one process.
std::vector<SavedCheckpoint> write_with(
    int64_t ranks, const fs::path& output, const std::function<TensorShares(int64_t rank)>& shares,
    const std::function<void(int64_t rank, CheckpointJob&)>& change = {}) {
  auto directory = std::make_shared<AtomicDirectory>(output / checkpoint_name(3));
  const std::string temporary = directory->path().filename().string();
  std::vector<std::string> descriptions;
  for (int64_t r = 0; r < ranks; ++r) descriptions.push_back(describe(shares(r), r));
  std::vector<std::unique_ptr<CheckpointWriter>> writers;
  for (int64_t r = 0; r < ranks; ++r) {
    CheckpointJob job{.output = output,
                      .temporary = temporary,
                      .step = 3,
                      .rank = r,
                      .ranks = ranks,
                      .timeout_s = 10,
                      .shares = shares(r),
                      .descriptions = descriptions};
    if (r == 0) {
      job.directory = std::move(directory);
      job.write_rest = [](const fs::path& folder) {
        write_file(folder / "config.json", "{}");
        write_file(folder / kTrainerStateFile, "{\"step\": 3}");
      };
    }
    if (change) change(r, job);
    writers.push_back(std::make_unique<CheckpointWriter>(std::chrono::seconds(60)));
    writers.back()->start(std::move(job));
  }
  std::vector<SavedCheckpoint> saved;
  for (const auto& writer : writers) saved.push_back(*writer->wait());
  return saved;
}

TEST(Checkpoint, OfAnyNumberOfRanksHasTheSameFiles) {
  const blt_test::TemporaryFolder folder;
  const std::vector<WholeTensor> tensors = some_tensors();
  for (const int64_t ranks : {1, 2, 3, 7}) {
    const fs::path output = folder / std::to_string(ranks);
    fs::create_directories(output);
    const auto saved = write_with(ranks, output, [&](int64_t rank) {
      TensorShares shares = equal_shares(kModelFile, tensors, rank, ranks);
      for (TensorShare& share : equal_shares(kOptimizerFile, tensors, rank, ranks)) shares.push_back(share);
      return shares;
    });
    for (const SavedCheckpoint& one : saved) EXPECT_TRUE(one.is_there) << ranks << ": " << one.failure;
    const fs::path checkpoint = output / "step_00000003";
    const SafetensorsFile file(checkpoint / kModelFile);
    ASSERT_EQ(file.entries().size(), tensors.size());
    for (const WholeTensor& item : tensors)
      EXPECT_TRUE(torch::equal(file.tensor(item.name), item.tensor)) << item.name;
    for (const char* name : {kModelFile, kOptimizerFile})
      EXPECT_EQ(content_of(checkpoint / name), content_of(folder / ("1/step_00000003/" + std::string(name))))
          << ranks;
    EXPECT_NO_THROW(check_checkpoint(checkpoint, *make_alone_group()));
    for (const auto& entry : fs::directory_iterator(checkpoint))
      EXPECT_NE(entry.path().filename().string()[0], '.') << entry.path();
    EXPECT_EQ(fs::read_symlink(output / "latest"), "step_00000003");
  }
}

// Else a thousand ranks would tell each other a thousand times what is in a checkpoint.
TEST(Checkpoint, ATensorIsDescribedByOneRank) {
  const std::vector<WholeTensor> tensors = some_tensors();
  for (const int64_t ranks : {1, 2, 7, 50}) {
    std::map<std::string, int> described;
    for (int64_t rank = 0; rank < ranks; ++rank)
      for (const auto& item :
           nlohmann::json::parse(describe(equal_shares(kModelFile, tensors, rank, ranks), rank)))
        ++described[item.at(1).get<std::string>()];
    EXPECT_EQ(described.size(), tensors.size());
    for (const auto& [name, times] : described) EXPECT_EQ(times, 1) << name << " of " << ranks;
  }
}

TEST(Checkpoint, HasTheOptimizersPartsInTheirPlaces) {
  const blt_test::TemporaryFolder folder;
  torch::nn::Linear module(torch::nn::LinearOptions(5, 4));
  const at::Tensor moments = torch::randn({4, 5}), bias = torch::randn({4});
  const auto shares = [&](int64_t rank) {
    // Rank 0 moves 13 elements of the weight, rank 1 seven; of the bias rank 1 everything, and rank 2 nothing.
    const Parts parts[] = {{{"weight", {0, 13}}, {"bias", {0, 0}}},
                           {{"weight", {13, 20}}, {"bias", {0, 4}}},
                           {{"weight", {20, 20}}, {"bias", {4, 4}}}};
    OptimizerState state;
    for (const auto& [name, whole] : {std::pair{"weight", moments}, {"bias", bias}}) {
      const Part part = parts[rank].at(name);
      if (part.begin == part.end) continue;
      state.push_back({std::string(name) + ".exp_avg", whole.reshape({-1}).slice(0, part.begin, part.end)});
      state.push_back({std::string(name) + ".step", torch::scalar_tensor(7.0)});
    }
    return optimizer_shares(kOptimizerFile, state, parts[rank], *module, rank, 3);
  };
  const auto saved = write_with(3, folder.path(), shares);
  for (const SavedCheckpoint& one : saved) ASSERT_TRUE(one.is_there) << one.failure;
  const SafetensorsFile file(folder / "step_00000003/optimizer.safetensors");
  EXPECT_EQ(file.entries().size(), 4u);
  EXPECT_TRUE(torch::equal(file.tensor("weight.exp_avg"), moments));
  EXPECT_TRUE(torch::equal(file.tensor("bias.exp_avg"), bias));
  for (const char* name : {"weight.step", "bias.step"}) {
    EXPECT_EQ(file.tensor(name).dim(), 0);
    EXPECT_EQ(file.tensor(name).item<float>(), 7);
  }
}

TEST(Checkpoint, HasNumbersOfRowsInTheirPlaces) {
  const blt_test::TemporaryFolder folder;
  torch::nn::Linear module(torch::nn::LinearOptions(5, 7));
  const at::Tensor moments = torch::randn({7, 5}).to(torch::kBFloat16), of_rows = torch::randn({7});
  const auto shares = [&](int64_t rank) {
    const int64_t rows[] = {0, 2, 2, 7};  // rank 1 has none, and says so
    const Parts parts = {{"weight", {rows[rank] * 5, rows[rank + 1] * 5}}};
    const OptimizerState state = {
        {"weight.exp_avg", moments.slice(0, rows[rank], rows[rank + 1]).reshape({-1})},
        {"weight.exp_avg_sq", of_rows.slice(0, rows[rank], rows[rank + 1]), /*is_by_row=*/true}};
    return optimizer_shares(kOptimizerFile, state, parts, *module, rank, 3);
  };
  for (const SavedCheckpoint& one : write_with(3, folder.path(), shares))
    ASSERT_TRUE(one.is_there) << one.failure;
  const SafetensorsFile file(folder / "step_00000003/optimizer.safetensors");
  EXPECT_TRUE(torch::equal(file.tensor("weight.exp_avg"), moments));
  EXPECT_TRUE(torch::equal(file.tensor("weight.exp_avg_sq"), of_rows));
}

TEST(Checkpoint, IsAbsentWhereARankCannotWriteItsPart) {
  const blt_test::TemporaryFolder folder;
  const std::vector<WholeTensor> tensors = some_tensors();
  const auto shares = [&](int64_t rank) { return equal_shares(kModelFile, tensors, rank, 3); };
  const std::vector<std::function<void(int64_t, CheckpointJob&)>> failures = {
      [](int64_t rank, CheckpointJob& job) {
        if (rank == 0) job.write_rest = [](const fs::path&) { throw Error("no room"); };
      },
      [](int64_t rank, CheckpointJob& job) {  // another folder, as on a disk that is not shared
        if (rank == 2) job.temporary = "elsewhere";
        job.timeout_s = 0.5;
      },
      [](int64_t rank, CheckpointJob& job) {  // two ranks write the same
        if (rank == 1) job.shares[0].begin = 0, job.shares[0].data = torch::zeros({7 * 11});
      }};
  const std::string expected[] = {"no room", "rank 2 has not written its part within 0.5 s after rank 0 had",
                                  "were written by two ranks"};
  for (size_t i = 0; i < failures.size(); ++i) {
    const auto saved = write_with(3, folder.path(), shares, failures[i]);
    EXPECT_NE(saved[0].failure.find(expected[i]), std::string::npos) << saved[0].failure;
    if (i == 1) {  // what rank 0 could not hear
      EXPECT_EQ(saved[1].unheard, "");
      EXPECT_NE(saved[2].unheard.find("elsewhere/.rank_2: cannot write: No such file or directory; is the "),
                std::string::npos)
          << saved[2].unheard;
    }
    for (const SavedCheckpoint& one : saved) {
      EXPECT_FALSE(one.is_there);
      EXPECT_NE(one.failure, "");
    }
    EXPECT_FALSE(fs::exists(folder / "step_00000003"));
    EXPECT_FALSE(fs::exists(folder / "latest"));
    tidy_checkpoints(folder.path(), {}, {});
    EXPECT_EQ(folder.num_entries(), 0u);
  }
  // A folder stands where rank 1 writes: it says so, and rank 0 says it for all.
  auto block = [&](int64_t rank, CheckpointJob& job) {
    if (rank == 1) fs::create_directories(folder / job.temporary / kModelFile);
  };
  const auto saved = write_with(3, folder.path(), shares, block);
  EXPECT_FALSE(saved[0].is_there);
  EXPECT_NE(saved[0].failure.find("model.safetensors: cannot write: Is a directory"), std::string::npos)
      << saved[0].failure;
}

// As on a file system without symbolic links: here folders stand in their way.
TEST(Checkpoint, OldOnesGoWhereLinksCannotBeMade) {
  const blt_test::TemporaryFolder folder;
  for (const char* file : {"latest/file", "best/file", "step_00000001/a", "step_00000002/a"})
    folder.write(file, "");
  const auto names = [&] {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder.path()))
      found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  };
  const KeepPolicy keep{.newest = 1, .best_step = 2};
  const auto saved = write_with(
      1, folder.path(), [&](int64_t) { return equal_shares(kModelFile, some_tensors(), 0, 1); },
      [&](int64_t, CheckpointJob& job) { job.keep = keep; });
  EXPECT_TRUE(saved[0].is_there);
  for (const char* link :
       {"latest: cannot be pointed at step_00000003", "best: cannot be pointed at step_00000002"})
    EXPECT_NE(saved[0].failure.find(link), std::string::npos) << saved[0].failure;
  EXPECT_EQ(names(), (std::vector<std::string>{"best", "latest", "step_00000002", "step_00000003"}));
  // Nor do they keep a run from its start.
  ::testing::internal::CaptureStderr();
  tidy_checkpoints(folder.path(), 3, {.newest = 1});
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("latest: cannot be pointed at step_00000003"), std::string::npos) << said;
  EXPECT_EQ(names(), (std::vector<std::string>{"best", "latest", "step_00000003"}));
}

// A damaged one takes no place of those that stay, and is not deleted.
TEST(Checkpoint, DamagedOnesAreSetAsideBeforeARunGoesOn) {
  const blt_test::TemporaryFolder folder;
  for (const char* file : {"step_00000001/a", "step_00000002/a", "step_00000004/a"}) folder.write(file, "");
  ::testing::internal::CaptureStderr();
  tidy_checkpoints(folder.path(), 2, {.newest = 2});
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("step_00000004 is damaged: it is step_00000004.damaged now"), std::string::npos)
      << said;
  folder.write("step_00000005/a", "");
  EXPECT_EQ(apply_policy(folder.path(), 5, {.newest = 2}), "");
  std::vector<std::string> left;
  for (const fs::path& checkpoint : list_checkpoints(folder.path()))
    left.push_back(checkpoint.filename().string());
  EXPECT_EQ(left, (std::vector<std::string>{"step_00000005", "step_00000002"}));
  EXPECT_TRUE(fs::exists(folder / "step_00000004.damaged/a"));
}

// What happened in a folder, in its order: "closed NAME", of files that were written, and "named NAME".
class FolderWatch {
 public:
  explicit FolderWatch(const fs::path& folder) {
    if (inotify_add_watch(descriptor_, folder.c_str(), IN_CLOSE_WRITE | IN_MOVED_TO) < 0)
      throw std::runtime_error("inotify_add_watch failed");
  }
  ~FolderWatch() { close(descriptor_); }
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;

  std::vector<std::string> events() const {
    std::vector<std::string> result;
    alignas(inotify_event) std::array<char, 1 << 16> buffer;
    const ssize_t count = read(descriptor_, buffer.data(), buffer.size());
    for (ssize_t place = 0; place < count;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + place);
      const std::string kind = (event->mask & IN_MOVED_TO) != 0 ? "named " : "closed ";
      if (event->len > 0) result.push_back(kind + event->name);
      place += static_cast<ssize_t>(sizeof(inotify_event)) + event->len;
    }
    return result;
  }

 private:
  int descriptor_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
};

// On a network's file system the first rank may read an empty file before that.
TEST(Checkpoint, HasMarksOfRanksThatAreClosedBeforeTheyHaveTheirNames) {
  const blt_test::TemporaryFolder folder;
  std::unique_ptr<FolderWatch> watch;
  const auto saved = write_with(
      2, folder.path(), [&](int64_t rank) { return equal_shares(kModelFile, some_tensors(), rank, 2); },
      [&](int64_t rank, CheckpointJob& job) {
        if (rank == 0) watch = std::make_unique<FolderWatch>(folder / job.temporary);
      });
  EXPECT_TRUE(saved[0].is_there) << saved[0].failure;
  const std::vector<std::string> events = watch->events();
  const auto named = std::find(events.begin(), events.end(), "named .rank_1.done");
  ASSERT_NE(named, events.end());
  EXPECT_EQ(std::count(events.begin(), named, "closed .rank_1"), 2);  // made, and filled
  EXPECT_EQ(std::count(events.begin(), events.end(), "closed .rank_1.done"), 0);
}

TEST(Checkpoint, IsDamagedWhereAnyBitIsNotWhatWasWritten) {
  const blt_test::TemporaryFolder folder;
  const std::vector<WholeTensor> tensors = some_tensors();
  write_with(2, folder.path(), [&](int64_t rank) {
    TensorShares shares = equal_shares(kModelFile, tensors, rank, 2);
    for (TensorShare& share : equal_shares(kOptimizerFile, tensors, rank, 2)) shares.push_back(share);
    return shares;
  });
  const fs::path checkpoint = folder / "step_00000003";
  const auto group = make_alone_group();
  ASSERT_NO_THROW(check_checkpoint(checkpoint, *group));
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    const fs::path path = entry.path();
    const std::string whole = content_of(path), name = path.filename().string();
    for (size_t place = 0; place < whole.size(); place += 1 + whole.size() / 40) {
      std::string damaged = whole;
      damaged[place] ^= 4;
      write_content(path, damaged);
      EXPECT_THROW(check_checkpoint(checkpoint, *group), Error) << name << "@" << place;
    }
    write_content(path, whole.substr(0, whole.size() - 1));
    EXPECT_THROW(check_checkpoint(checkpoint, *group), Error) << name << " cut short";
    fs::remove(path);
    EXPECT_MESSAGE(check_checkpoint(checkpoint, *group), name);
    write_content(path, whole);
  }
  ASSERT_NO_THROW(check_checkpoint(checkpoint, *group));
  // What is said: the file, the place, the tensor and who wrote it.
  std::string bytes = content_of(checkpoint / kModelFile);
  bytes.back() ^= 1;
  write_content(checkpoint / kModelFile, bytes);
  EXPECT_MESSAGE(check_checkpoint(checkpoint, *group), "of tensor a, are not those that rank 1 wrote");
  // All ranks come to the same, and there is no other one.
  testing::in_group(3, [&](const std::shared_ptr<Group>& ranks) {
    EXPECT_MESSAGE(check_checkpoint(checkpoint, *ranks), (checkpoint / kModelFile).string() + "@");
    EXPECT_MESSAGE(newest_whole_checkpoint(folder.path(), *ranks), "none of them is whole");
  });
}

}  // namespace
}  // namespace blt
