#include "blt/data/documents.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "blt/base/error.h"
#include "data/document_reader.h"

namespace blt {

Documents::Documents(std::vector<DataFile> files, Options options)
    : files_(std::move(files)), options_(std::move(options)) {
  TORCH_CHECK(!files_.empty() && options_.sequence_bytes > 0,
              "Documents: no files, or sequences of no bytes");
  if (options_.file_order) options_.file_order->shuffle(files_);
}
Documents::~Documents() = default;

std::optional<Sequence> Documents::next() {
  for (; file_ < files_.size(); ++file_, reader_.reset()) {
    if (!reader_) reader_ = DocumentReader::open(files_[file_], options_.text_field);
    if (auto sequence = reader_->next(static_cast<size_t>(options_.sequence_bytes))) {
      found_ = true;
      return sequence;
    }
  }
  if (!found_)
    throw Error(fmt::format("{}{}: there is no document in it, only empty ones", files_[0].path.string(),
                            files_.size() > 1 ? fmt::format(" and {} more files", files_.size() - 1) : ""));
  return std::nullopt;
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
  reader_ = DocumentReader::open(files_[file_], options_.text_field);
  reader_->load(in.section("reader"));
}

}  // namespace blt
