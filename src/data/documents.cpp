#include "blt/data/documents.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <chrono>
#include <exception>

#include "blt/base/error.h"
#include "blt/base/log.h"
#include "data/document_reader.h"

namespace blt {

std::string name_of(const TextPlace& place, const DataConfig& data) {
  std::string name = fmt::format("source {}, file {}", place.source, place.file);
  try {
    name = find_files(data.sources.at(static_cast<size_t>(place.source)))
               .at(static_cast<size_t>(place.file))
               .path.string();
  } catch (const std::exception&) {  // the text has changed, or is of no source
  }
  if (place.line > 0) name += fmt::format(":{}", place.line);
  return place.offset > 0 ? fmt::format("{} from byte {} on", name, place.offset) : name;
}

Documents::Documents(std::vector<DataFile> files, Options options)
    : files_(std::move(files)), options_(std::move(options)) {
  TORCH_CHECK(!files_.empty() && options_.sequence_bytes > 0,
              "Documents: no files, or sequences of no bytes");
  if (options_.file_order) options_.file_order->shuffle(files_);
}
Documents::~Documents() = default;

std::optional<Sequence> Documents::next() {
  for (; file_ < files_.size(); ++file_, reader_.reset())
    if (auto sequence = next_of_file()) {
      found_ = true;
      return sequence;
    }
  if (!found_)
    throw Error(fmt::format("{}{}: there is no document in {}, {}", files_[0].path.string(),
                            files_.size() > 1 ? fmt::format(" and {} more files", files_.size() - 1) : "",
                            files_.size() > 1 ? "them" : "it",
                            skipped_ > 0 ? "only broken ones" : "only empty ones"));
  return std::nullopt;
}

// Of the file that is being read; nullopt at its end.
std::optional<Sequence> Documents::next_of_file() {
  while (true) {
    try {
      if (!reader_) reader_ = DocumentReader::open(files_[file_], options_.text_field);
      std::optional<Sequence> sequence = reader_->next(static_cast<size_t>(options_.sequence_bytes));
      if (sequence) {
        sequence->place.source = options_.source;
        sequence->place.file = files_[file_].number;
      }
      return sequence;
    } catch (const DocumentError& problem) {
      if (options_.on_error == OnDataError::kFail) throw;
      pass_over(problem, "this document");
    } catch (const Error& problem) {
      if (options_.on_error == OnDataError::kFail) throw;
      pass_over(problem, "the rest of the file");
      return std::nullopt;
    }
  }
}

void Documents::pass_over(const Error& problem, const char* what) {
  constexpr int64_t kMostWarnings = 10;
  if (options_.skipped != nullptr) ++*options_.skipped;
  if (++skipped_ <= kMostWarnings) log_warning(fmt::format("{}; {} is skipped", problem.what(), what));
  if (skipped_ == kMostWarnings)
    log_warning("more of these are skipped without a word; the metrics count them");
}

void Documents::save(StateWriter& out) const {
  out.put("file", static_cast<int64_t>(file_));
  out.put("found", found_ ? 1 : 0);
  if (file_ < files_.size()) out.put("name", files_[file_].path.filename().string());
  if (reader_) {
    StateWriter reader = out.section("reader");
    reader_->save(reader);
  }
  out.put("inside", reader_ ? 1 : 0);
}

void Documents::load(const StateReader& in) {
  const int64_t file = in.integer("file");
  const auto count = static_cast<int64_t>(files_.size());
  if (file < 0 || file > count || (file < count && in.text("name") != files_[file].path.filename().string()))
    throw Error(fmt::format(
        "the files of {} are not those of the run that saved its state: it was reading {}, number {} of them",
        files_[0].path.string(), file < 0 || file > count ? "another one" : in.text("name"), file + 1));
  file_ = static_cast<size_t>(file);
  found_ = in.integer("found") != 0;
  reader_.reset();
  if (in.integer("inside") == 0) return;
  const auto start = std::chrono::steady_clock::now();
  reader_ = DocumentReader::open(files_[file_], options_.text_field);
  reader_->load(in.section("reader"));
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  if (time > std::chrono::milliseconds(100))
    log_info(fmt::format("{}: read forward to where the run was, in {:.1f} s", files_[file_].path.string(),
                         time.count()));
}

}  // namespace blt
