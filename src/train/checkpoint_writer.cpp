#include "train/checkpoint_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

#include "blt/base/error.h"
#include "blt/io/model_content.h"

namespace blt {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kFirstLook(5),
    kLastLook(500);                          // rarer and rarer: many ranks ask one disk
constexpr std::chrono::seconds kHurried(3);  // less than a launcher gives to ranks after one has failed
constexpr const char* kIsItShared = "is the output folder shared by all ranks?";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

using Word = CheckpointWriter::Word;
using Limit = std::chrono::time_point<Clock, std::chrono::duration<double>>;

// Waits until something is so; false when the time is over, or there is nothing to wait for any more.
template <class Done>
bool wait_until(const Done& done, Limit limit, const Word& word) {
  std::optional<Clock::time_point> hurried;
  for (std::chrono::duration<double> pause = kFirstLook; !done();
       pause = std::min<std::chrono::duration<double>>(1.2 * pause, kLastLook)) {
    if (word.stop) return false;
    if (word.hurry && !hurried) hurried = Clock::now() + kHurried;
    if (Clock::now() > limit || (hurried && Clock::now() > *hurried)) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

void throw_if_told(const Word& word) {
  if (word.stop && !word.why.empty()) throw Error(word.why);
}

// The file that says how far a rank is, by its name. Renaming needs no room on the disk.
struct Marks {
  fs::path folder;
  fs::path begun(int64_t rank) const { return folder / fmt::format(".rank_{}", rank); }
  fs::path done(int64_t rank) const { return folder / fmt::format(".rank_{}.done", rank); }
  fs::path failed(int64_t rank) const { return folder / fmt::format(".rank_{}.failed", rank); }
};

std::string writing(const fs::path& path) { return fmt::format("writing {}", path.string()); }

WrittenRanges write_own(const CheckpointJob& job, const fs::path& folder, Word& word) {
  std::map<std::string, std::map<std::string, std::string>> metadata = {{kModelFile, model_metadata()},
                                                                        {kOptimizerFile, {}}};
  if (job.has_ema) metadata.emplace(kEmaModelFile, model_metadata());
  job.copied.wait();
  const auto files = lay_out_files(job.descriptions, metadata);
  return write_shares(folder, files, job.shares, job.rank, /*with_headers=*/job.rank == 0,
                      [&](const fs::path& file) { word.does(writing(file)); });
}

// Whether the first rank will see it; a disk that is full may not take the reason.
bool mark_failed(const Marks& marks, int64_t rank, const std::string& why) {
  std::error_code error;
  fs::resize_file(marks.begun(rank), 0, error);
  try {
    AppendFile(marks.begun(rank)).append(why);
  } catch (const Error&) {
  }
  fs::rename(marks.begun(rank), marks.failed(rank), error);
  return !error;
}

// It is closed before it has its name: on a network's file system others see only then what is in it.
void mark_done(const Marks& marks, int64_t rank, const WrittenRanges& ranges) {
  {
    AppendFile mark(marks.begun(rank));
    mark.append(to_json(ranges));
    mark.sync();
  }
  fs::rename(marks.begun(rank), marks.done(rank));
}

// Of a rank that is not the first.
void write_with_others(CheckpointJob& job, Word& word, std::string& unheard) {
  const Marks marks{job.output / job.temporary};
  word.does(writing(marks.begun(job.rank)));
  try {
    { const AppendFile begun(marks.begun(job.rank)); }  // while there is room
  } catch (const Error& e) {
    unheard = fmt::format("{}; {}", e.what(), kIsItShared);
    throw;
  }
  try {
    const WrittenRanges ranges = write_own(job, marks.folder, word);
    job.shares.clear();  // the memory
    word.does(writing(marks.begun(job.rank)));
    mark_done(marks, job.rank, ranges);
  } catch (const std::exception& e) {
    // Where the folder has gone, the first rank has failed, and said why.
    if (!mark_failed(marks, job.rank, e.what()) && is_there(marks.folder)) unheard = e.what();
    throw;
  }
  word.does("");
  wait_until([&] { return !is_there(marks.folder); }, Limit::max(), word);
  throw_if_told(word);
  if (!is_there(job.output / checkpoint_name(job.step))) throw Error("rank 0 could not finish it");
}

// What all other ranks have written.
WrittenRanges ranges_of_others(const CheckpointJob& job, const Marks& marks, const Word& word) {
  const Limit limit = Clock::now() + std::chrono::duration<double>(job.timeout_s);
  WrittenRanges all;
  for (int64_t rank = 1; rank < job.ranks; ++rank) {
    const fs::path done = marks.done(rank), failed = marks.failed(rank);
    if (!wait_until([&] { return is_there(done) || is_there(failed); }, limit, word)) {
      throw_if_told(word);
      throw Error(fmt::format(
          "rank {} has not written its part within {:g} s after rank 0 had (parallel.timeout_s); {}", rank,
          job.timeout_s, kIsItShared));
    }
    if (is_there(failed)) {
      const std::string why = read_file(failed);
      throw Error(fmt::format("rank {}: {}", rank, why.empty() ? "cannot write its part, nor say why" : why));
    }
    for (auto& [file, ranges] : written_ranges(read_file(done), done.string()))
      all[file].insert(all[file].end(), ranges.begin(), ranges.end());
    fs::remove(done);
  }
  return all;
}

void write_as_first(CheckpointJob& job, Word& word) {
  const std::shared_ptr<AtomicDirectory> directory =
      std::move(job.directory);  // without a commit it goes, first of all
  const fs::path folder = directory->path();
  WrittenRanges ranges = write_own(job, folder, word);
  job.shares.clear();
  word.does(writing(folder));
  job.write_rest(folder);
  word.does("");
  for (auto& [file, of_others] : ranges_of_others(job, Marks{folder}, word))
    ranges[file].insert(ranges[file].end(), of_others.begin(), of_others.end());
  word.does(writing(folder));
  write_manifest(folder, std::move(ranges));
  if (word.abandoned) throw Error("it took too long");
  directory->commit();
}

SavedCheckpoint write(CheckpointJob job, Word& word) {
  SavedCheckpoint saved{.step = job.step, .path = job.output / checkpoint_name(job.step)};
  try {
    if (job.rank == 0)
      write_as_first(job, word);
    else
      write_with_others(job, word, saved.unheard);
    saved.is_there = true;
    if (job.rank == 0) saved.failure = apply_policy(job.output, job.step, job.keep);
  } catch (const std::exception& e) {
    saved.failure = e.what();
  }
  return saved;
}

}  // namespace

CheckpointWriter::~CheckpointWriter() {
  word_->hurry = true;
  if (is_busy() && writing_.wait_for(longest_) != std::future_status::ready)
    abandon();
  else
    wait();
}

void CheckpointWriter::start(CheckpointJob job) {
  word_ = std::make_shared<Word>();
  std::packaged_task<SavedCheckpoint()> task(
      [job = std::move(job), word = word_]() mutable { return write(std::move(job), *word); });
  writing_ = task.get_future();
  thread_ = std::thread(std::move(task));
}

void CheckpointWriter::fail(int64_t step, std::string failure) {
  std::promise<SavedCheckpoint> known;
  known.set_value({.step = step, .failure = std::move(failure)});
  writing_ = known.get_future();
}

std::optional<SavedCheckpoint> CheckpointWriter::wait() {
  if (!is_busy()) return std::nullopt;
  SavedCheckpoint saved = writing_.get();
  if (thread_.joinable()) thread_.join();
  return saved;
}

std::optional<SavedCheckpoint> CheckpointWriter::wait(std::chrono::duration<double> longest) {
  if (!is_busy() || writing_.wait_for(longest) != std::future_status::ready) return std::nullopt;
  return wait();
}

void CheckpointWriter::stop_waiting(const std::string& why) {
  if (word_->stop) return;  // the first word counts
  word_->why = why;
  word_->stop = true;
}

std::string CheckpointWriter::doing() const { return is_busy() ? word_->doing() : ""; }

void CheckpointWriter::abandon() {
  word_->abandoned = true;
  stop_waiting("it took too long");
  if (thread_.joinable()) thread_.detach();
  writing_ = {};
}

}  // namespace blt
