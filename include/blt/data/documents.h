// Reads documents from files and hands them out cut into sequences. Files are streamed: a document, compressed or
// in a line of JSON too, may be longer than memory. A line of more than 16 MiB is an error where other things than its text take more than
// that before or behind it; a broken one is found out behind its first sequences. Of a Parquet file the page is held that a document is in.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/rng.h"
#include "blt/data/data_config.h"
#include "blt/data/sequence.h"
#include "blt/data/stage.h"

namespace blt {

struct DataFile {
  std::filesystem::path path;                     // "-": standard input
  DocumentFormat format = DocumentFormat::kText;  // not kAuto
  int32_t number = 0;                             // among a source's files, in its order
};

// The files that a source means, in its order; those of a folder or a glob sorted by path. In folders and
// globs, hidden files and hidden folders are left out, links to folders are not followed, and empty files are
// skipped. `*` and `?` in a glob match within a name, `[…]` too, `**` any folders. A path that exists is
// taken as it is, whatever its name.
// Throws blt::Error when a path is missing (naming what is near), unreadable, empty, or there are no files in
// it; for a Parquet file inside an archive or on standard input, and for any in a build without Arrow.
std::vector<DataFile> find_files(const SourceConfig& source);

// Of a place in the training text, for messages: `books/train.jsonl:17`, `war_and_peace.txt`, `… from byte 4096 on`. Looks for the source's
// files again; where that does not find it, its numbers.
std::string name_of(const TextPlace& place, const DataConfig& data);

class DocumentReader;

// One pass over the documents of some files. Documents without a byte are skipped.
// Throws blt::Error when there is no document in all the files; at `file:line` for invalid JSON and a missing or wrongly typed text
// field, at `file:row` for a row of Parquet without a text, at `file@offset` (of the compressed file) for truncated or damaged archives, at
// `file` for a damaged Parquet file and a column that is missing or not of text. These are passed over instead where
// `on_error` says so, with a warning: a broken line or row alone, of a broken file what follows.
class Documents : public Stage<Sequence> {
 public:
  struct Options {
    int64_t sequence_bytes = 4096;
    int32_t source = -1;                 // TextPlace::source
    std::string text_field = "text";     // of JSON lines; of Parquet, the column
    std::optional<Rng> file_order = {};  // the files come in a random order
    OnDataError on_error = OnDataError::kFail;
    std::atomic<int64_t>* skipped =
        nullptr;  // where it is counted what was passed over; outlives this; may be null
  };
  Documents(std::vector<DataFile> files, Options options);
  ~Documents() override;

  std::optional<Sequence> next() override;
  void save(StateWriter& out) const override;  // file and place in it
  // Reads a compressed file again up to there, and says in the log how long that took.
  void load(const StateReader& in) override;

 private:
  std::optional<Sequence> next_of_file();
  void pass_over(const Error& problem, const char* what);

  std::vector<DataFile> files_;
  Options options_;
  size_t file_ = 0;     // that is read
  bool found_ = false;  // a document
  int64_t skipped_ = 0;
  std::unique_ptr<DocumentReader> reader_;
};

}  // namespace blt
