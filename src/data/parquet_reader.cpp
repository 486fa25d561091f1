// The library libblt_parquet.so, which parquet.cpp loads.
#include <arrow/io/file.h>
#include <arrow/memory_pool.h>
#include <fmt/format.h>
#include <parquet/column_reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/config_text.h"
#include "data/parquet.h"

namespace blt {
namespace {

constexpr int64_t kReadBytes = 1 << 18;  // of the file at a time
constexpr int64_t kRows = 256;           // that Arrow is asked for at a time, of one page

// Memory is malloc's, as libblt's own is (blt/base/memory.h), and not Arrow's pool.
parquet::ReaderProperties reader_properties() {
  parquet::ReaderProperties properties(arrow::system_memory_pool());
  properties.enable_buffered_stream();  // a page at a time, not all of a row group's
  properties.set_buffer_size(kReadBytes);
  properties.set_page_checksum_verification(true);
  return properties;
}

// What a column holds, in Parquet's terms.
std::string type_of(const parquet::schema::Node& node) {
  if (node.is_group()) return "a group of columns";
  const auto type =
      parquet::TypeToString(static_cast<const parquet::schema::PrimitiveNode&>(node).physical_type());
  const std::string list = node.is_repeated() ? "a list of " : "";
  if (!node.logical_type() || node.logical_type()->is_none()) return list + type;
  return fmt::format("{}{} ({})", list, type, node.logical_type()->ToString());
}

bool is_text(const parquet::schema::Node& node) {
  if (node.is_group() || node.is_repeated()) return false;
  if (static_cast<const parquet::schema::PrimitiveNode&>(node).physical_type() != parquet::Type::BYTE_ARRAY)
    return false;
  const auto& type = node.logical_type();
  return !type || type->is_none() || type->is_string() || type->is_JSON() || type->is_enum();
}

// What Arrow throws becomes an error that names the file. row: the last one before what is read; 0: none.
template <class F>
auto reading(const std::filesystem::path& path, int64_t row, const F& f) {
  try {
    return f();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& problem) {
    throw Error(fmt::format(
        "{}: cannot be read as Parquet{} ({}): where it is damaged or cut short, copy or download "
        "the file again",
        path.string(), row > 0 ? fmt::format(" behind row {}", row) : "", problem.what()));
  }
}

class ParquetReader : public DocumentReader {
 public:
  ParquetReader(std::filesystem::path path, const std::string& text_field)
      : path_(std::move(path)), text_field_(text_field) {
    reading(path_, 0, [&] {
      auto file = arrow::io::ReadableFile::Open(path_.string(), arrow::system_memory_pool());
      PARQUET_THROW_NOT_OK(file.status());
      file_ = parquet::ParquetFileReader::Open(*file, reader_properties());
      find_column();
      check_rows();
    });
  }

  std::optional<Sequence> next(size_t max_bytes) override {
    if (!inside_ && !next_document()) return std::nullopt;
    Sequence result;
    result.starts_document = text_offset_ == 0;
    result.place.line = row_;
    result.place.offset = static_cast<int64_t>(text_offset_);
    result.bytes = text_.substr(text_offset_, max_bytes);
    text_offset_ += result.bytes.size();
    result.ends_document = text_offset_ == text_.size();
    inside_ = !result.ends_document;
    return result;
  }

  void save(StateWriter& out) const override {  // inside a document its row is read again
    out.put("row", inside_ ? row_ - 1 : row_);
    out.put("text_offset", static_cast<int64_t>(inside_ ? text_offset_ : 0));
  }
  void load(const StateReader& in) override {
    skip(in.integer("row"));
    const auto text_offset = static_cast<size_t>(in.integer("text_offset"));
    if (text_offset == 0) return;
    inside_ = next_document();
    if (!inside_ || text_.size() <= text_offset)
      throw Error(fmt::format("{}:{}: is not the row it was when the state was saved", path_.string(), row_));
    text_offset_ = text_offset;
  }

 private:
  void find_column() {
    const parquet::SchemaDescriptor& schema = *file_->metadata()->schema();
    const parquet::schema::GroupNode& columns = *schema.group_node();
    const int field = columns.FieldIndex(text_field_);
    if (field < 0) {
      std::vector<std::string> names;
      for (int i = 0; i < columns.field_count(); ++i) names.push_back(columns.field(i)->name());
      throw Error(fmt::format(
          "{}: there is no column \"{}\"{}: name that of the text with text_field; there {} {}",
          path_.string(), text_field_, config_detail::did_you_mean(text_field_, {names.begin(), names.end()}),
          names.size() == 1 ? "is" : "are", fmt::join(names, ", ")));
    }
    const parquet::schema::Node& node = *columns.field(field);
    if (!is_text(node))
      throw Error(fmt::format("{}: \"{}\" is a column of strings or bytes, here it is {}", path_.string(),
                              text_field_, type_of(node)));
    column_number_ = schema.ColumnIndex(node);
    optional_ = node.is_optional();
  }

  // Parquet has no checksum over its metadata: what it says twice has to be the same.
  void check_rows() {
    const parquet::FileMetaData& file = *file_->metadata();
    int64_t rows = 0;
    for (int i = 0; i < file.num_row_groups(); ++i) {
      const auto group = file.RowGroup(i);
      const int64_t values = group->ColumnChunk(column_number_)->num_values();
      if (group->num_rows() < 0 || values != group->num_rows())
        fail_damaged(fmt::format("row group {} has {} rows, and {} values of \"{}\"", i + 1,
                                 group->num_rows(), values, text_field_));
      group_rows_.push_back(group->num_rows());
      rows += group->num_rows();
    }
    if (rows != file.num_rows())
      fail_damaged(fmt::format("it has {} rows, its groups together {}", file.num_rows(), rows));
  }
  [[noreturn]] void fail_damaged(const std::string& what) const {
    throw Error(
        fmt::format("{}: the Parquet file is damaged: {}: copy or download it again", path_.string(), what));
  }

  // Opens the next group of rows.
  void open_group() {
    reading(path_, row_, [&] {
      column_ = std::static_pointer_cast<parquet::ByteArrayReader>(
          file_->RowGroup(static_cast<int>(next_group_))->Column(column_number_));
    });
    group_rows_left_ = group_rows_[next_group_++];
  }

  // Goes to the row behind `row`, without reading what is in the groups of rows before it.
  void skip(int64_t row) {
    while (next_group_ < group_rows_.size() && row_ + group_rows_[next_group_] <= row)
      row_ += group_rows_[next_group_++];
    int64_t rows = row - row_;
    if (rows > 0 && next_group_ < group_rows_.size()) {
      open_group();
      const int64_t skipped = reading(path_, row_, [&] { return column_->Skip(rows); });
      group_rows_left_ -= skipped;
      rows -= skipped;
    }
    if (rows > 0)
      throw Error(
          fmt::format("{}: is shorter than when the state was saved, by {} rows", path_.string(), rows));
    row_ = row;
  }

  // Reads the next rows of a page; false at the end of the file.
  bool read_rows() {
    while (group_rows_left_ == 0) {
      if (next_group_ == group_rows_.size()) return false;
      open_group();
    }
    int64_t values = 0;
    read_ = reading(path_, row_, [&] {
      return column_->ReadBatch(std::min(kRows, group_rows_left_), levels_.data(), nullptr, values_.data(),
                                &values);
    });
    if (read_ == 0)
      fail_damaged(fmt::format("row group {} ends {} rows too early, behind row {}", next_group_,
                               group_rows_left_, row_));
    group_rows_left_ -= read_;
    used_ = 0;
    next_value_ = values_.data();
    return true;
  }

  // Goes to the next row with a text that is not empty; false at the end.
  bool next_document() {
    while (used_ < read_ || read_rows()) {
      ++row_;
      if (optional_ && levels_[used_++] == 0)
        throw DocumentError(fmt::format("{}:{}: \"{}\" is a string in every row, here it is null",
                                        path_.string(), row_, text_field_));
      if (!optional_) ++used_;
      text_ = {reinterpret_cast<const char*>(next_value_->ptr), next_value_->len};
      ++next_value_;
      text_offset_ = 0;
      if (!text_.empty()) return true;
    }
    return false;
  }

  std::filesystem::path path_;
  std::string text_field_;
  std::unique_ptr<parquet::ParquetFileReader> file_;
  int column_number_ = 0;
  bool optional_ = false;                             // a row may be without a value
  std::shared_ptr<parquet::ByteArrayReader> column_;  // of the group before next_group_
  std::vector<int64_t> group_rows_;                   // how many rows each group has
  size_t next_group_ = 0;
  int64_t group_rows_left_ = 0;  // of column_'s, that were not read
  // What was read of it and stays valid until the next read: for each row whether there is a value, and the values that there are.
  std::array<int16_t, kRows> levels_ = {};
  std::array<parquet::ByteArray, kRows> values_ = {};
  int64_t read_ = 0, used_ = 0;  // rows
  const parquet::ByteArray* next_value_ = nullptr;
  int64_t row_ = 0;         // the current one, from 1
  std::string_view text_;   // its text
  size_t text_offset_ = 0;  // bytes of it handed out
  bool inside_ = false;     // a document that is not handed out to its end
};

}  // namespace

}  // namespace blt

// See parquet.h. A library of one function: nothing else is looked for in it.
extern "C" __attribute__((visibility("default"))) blt::DocumentReader* blt_open_parquet(
    const std::filesystem::path& path, const std::string& text_field) {
  return std::make_unique<blt::ParquetReader>(path, text_field).release();
}

static_assert(std::is_same_v<decltype(blt_open_parquet), blt::parquet_detail::Open>);
