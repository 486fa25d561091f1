// Parquet files as Arrow's own writer leaves them, read as documents.
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/data/documents.h"
#include "data/document_reader.h"
#include "file_content.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using Values = std::vector<std::optional<std::string>>;  // of a column; nullopt: null

void check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

template <class Builder = arrow::StringBuilder>
std::shared_ptr<arrow::Array> strings(const Values& values) {
  Builder builder;
  for (const auto& value : values) check(value ? builder.Append(*value) : builder.AppendNull());
  return builder.Finish().ValueOrDie();
}
std::shared_ptr<arrow::Array> integers(size_t count) {
  arrow::Int64Builder builder;
  for (size_t i = 0; i < count; ++i) check(builder.Append(static_cast<int64_t>(i)));
  return builder.Finish().ValueOrDie();
}

struct Column {
  std::string name;
  std::shared_ptr<arrow::Array> values;
  bool nullable = true;
};

struct Layout {
  int64_t group_rows = 1 << 20;
  int64_t page_bytes = 1 << 20;
  bool dictionary = true;
  parquet::Encoding::type encoding = parquet::Encoding::PLAIN;  // without a dictionary
  parquet::ParquetDataPageVersion page_version = parquet::ParquetDataPageVersion::V1;
  arrow::Compression::type compression = arrow::Compression::ZSTD;
};

void write(const std::filesystem::path& path, const std::vector<Column>& columns, const Layout& layout = {}) {
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (const Column& column : columns) {
    fields.push_back(arrow::field(column.name, column.values->type(), column.nullable));
    arrays.push_back(column.values);
  }
  const auto table = arrow::Table::Make(arrow::schema(fields), arrays);
  parquet::WriterProperties::Builder properties;
  properties.compression(layout.compression)->data_pagesize(layout.page_bytes)->write_batch_size(1);
  properties.data_page_version(layout.page_version)->enable_page_checksum();
  if (layout.dictionary)
    properties.enable_dictionary();
  else
    properties.disable_dictionary()->encoding(layout.encoding);
  const auto file = arrow::io::FileOutputStream::Open(path.string()).ValueOrDie();
  // The Arrow types stand in the file's metadata, as pyarrow writes it.
  const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
  check(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), file, layout.group_rows,
                                   properties.build(), arrow_properties));
  check(file->Close());
}

struct Read {
  std::vector<std::string> texts;
  std::vector<int64_t> rows;  // of each document
  int64_t skipped = 0;
};

// All documents, put together again from their sequences.
Read read(const SourceConfig& source, int64_t sequence_bytes = 7) {
  Read result;
  std::atomic<int64_t> skipped = 0;
  Documents documents(find_files(source), {.sequence_bytes = sequence_bytes,
                                           .text_field = source.text_field,
                                           .on_error = source.on_error,
                                           .skipped = &skipped});
  while (const auto sequence = documents.next()) {
    EXPECT_TRUE(sequence->bytes.size() == static_cast<size_t>(sequence_bytes) || sequence->ends_document);
    if (sequence->starts_document) {
      result.texts.emplace_back();
      result.rows.push_back(sequence->place.line);
    }
    EXPECT_EQ(static_cast<size_t>(sequence->place.offset), result.texts.back().size());
    EXPECT_EQ(sequence->place.line, result.rows.back());
    result.texts.back() += sequence->bytes;
  }
  result.skipped = skipped;
  return result;
}
SourceConfig source_of(const std::filesystem::path& path, OnDataError on_error = OnDataError::kFail) {
  SourceConfig source;
  source.paths = {path};
  source.on_error = on_error;
  return source;
}
std::vector<std::string> texts(const std::filesystem::path& path) { return read(source_of(path)).texts; }

class Parquet : public testing::Test {
 protected:
  Parquet() {
    for (int i = 0; i < 40;
         ++i) {  // some of them the same, some longer than a sequence, one empty, any bytes
      const std::string text =
          i == 17 ? ""
                  : std::string(static_cast<size_t>(i % 9 + 1), static_cast<char>('a' + i % 7)) +
                        (i % 3 == 0 ? "\0\xff é\n" : " b");
      values_.emplace_back(text);
      if (!text.empty()) texts_.push_back(text);
    }
  }
  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "a.parquet";
  Values values_;
  std::vector<std::string> texts_;  // those of them that are documents
};

TEST_F(Parquet, EveryRowIsADocumentInColumnsOfEveryKindOfString) {
  const auto dictionary = [&] {
    arrow::StringDictionaryBuilder builder;
    for (const auto& value : values_) check(builder.Append(*value));
    return std::shared_ptr<arrow::Array>(builder.Finish().ValueOrDie());
  };
  for (const bool nullable : {true, false})
    for (const auto& column :
         {strings(values_), strings<arrow::LargeStringBuilder>(values_),
          strings<arrow::BinaryBuilder>(values_), strings<arrow::LargeBinaryBuilder>(values_),
          strings<arrow::StringViewBuilder>(values_), dictionary()}) {
      write(path_,
            {{"id", integers(values_.size())}, {"text", column, nullable}, {"other", strings(values_)}},
            {.group_rows = 11});
      EXPECT_EQ(texts(path_), texts_) << column->type()->ToString() << " " << nullable;
    }
}

TEST_F(Parquet, HoweverItsPagesAreLaidOut) {
  for (const auto version : {parquet::ParquetDataPageVersion::V1, parquet::ParquetDataPageVersion::V2})
    for (const auto compression : {arrow::Compression::UNCOMPRESSED, arrow::Compression::SNAPPY,
                                   arrow::Compression::GZIP, arrow::Compression::ZSTD})
      for (const int64_t page_bytes : {1, 64, 1 << 20})
        for (const int64_t group_rows : {1, 7, 1 << 20}) {
          const std::vector<Column> columns = {{"text", strings(values_)}};
          Layout layout = {.group_rows = group_rows,
                           .page_bytes = page_bytes,
                           .page_version = version,
                           .compression = compression};
          write(path_, columns, layout);
          ASSERT_EQ(texts(path_), texts_);
          layout.dictionary = false;
          for (const auto encoding : {parquet::Encoding::PLAIN, parquet::Encoding::DELTA_LENGTH_BYTE_ARRAY,
                                      parquet::Encoding::DELTA_BYTE_ARRAY}) {
            layout.encoding = encoding;
            write(path_, columns, layout);
            ASSERT_EQ(texts(path_), texts_) << encoding;
          }
        }
}

TEST_F(Parquet, RowsAreNumberedAcrossGroups) {
  write(path_, {{"text", strings({"a", "", "b", "c", std::string(20, 'd')})}}, {.group_rows = 2});
  const Read all = read(source_of(path_));
  EXPECT_EQ(all.rows, (std::vector<int64_t>{1, 3, 4, 5}));
  DataConfig data;
  data.sources = {source_of(path_)};
  EXPECT_EQ(name_of({.source = 0, .file = 0, .line = 5, .offset = 7}, data),
            path_.string() + ":5 from byte 7 on");
}

TEST_F(Parquet, FormatAndColumnAreConfigurable) {
  const auto path = folder_ / "shard-00001";
  write(path, {{"text", integers(values_.size())}, {"body.raw", strings(values_)}});
  SourceConfig source = source_of(path);
  source.format = DocumentFormat::kParquet;
  source.text_field = "body.raw";  // a name with a dot is one name
  EXPECT_EQ(read(source).texts, texts_);
}

TEST_F(Parquet, GoesOnAtEachSequence) {
  values_[5] = std::nullopt;
  write(path_, {{"id", integers(values_.size())}, {"text", strings(values_)}},
        {.group_rows = 9, .page_bytes = 16});
  const DataFile file{.path = path_, .format = DocumentFormat::kParquet};
  const auto rest = [](DocumentReader& reader, size_t most) {
    std::vector<std::string> result;
    while (result.size() < most) {
      try {
        const auto sequence = reader.next(4);
        if (!sequence) break;
        result.push_back(std::to_string(sequence->place.line) + "@" + std::to_string(sequence->place.offset) +
                         ":" + sequence->bytes + (sequence->ends_document ? "]" : ""));
      } catch (const DocumentError& error) {
        result.push_back(error.what());
      }
    }
    return result;
  };
  const auto whole = rest(*DocumentReader::open(file, "text"), 1 << 20);
  ASSERT_GT(whole.size(), values_.size());
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    const auto first = DocumentReader::open(file, "text"), second = DocumentReader::open(file, "text");
    auto pieces = rest(*first, cut);
    StateWriter state;
    first->save(state);
    second->load(StateReader(state.json(), "state"));
    for (std::string& piece : rest(*second, 1 << 20)) pieces.push_back(std::move(piece));
    ASSERT_EQ(pieces, whole) << "after " << cut;
  }
}

TEST_F(Parquet, AnotherFileIsNotGoneOnWith) {
  write(path_, {{"text", strings({"one", std::string(20, 'x'), "three"})}}, {.group_rows = 2});
  const DataFile file{.path = path_, .format = DocumentFormat::kParquet};
  const auto load = [&](const char* state) {
    return message_of([&] { DocumentReader::open(file, "text")->load(StateReader(state, "state")); });
  };
  EXPECT_EQ(load(R"({"row": 2, "text_offset": 0})"), "(nothing was thrown)");
  EXPECT_EQ(load(R"({"row": 3, "text_offset": 0})"), "(nothing was thrown)");
  EXPECT_EQ(load(R"({"row": 1, "text_offset": 19})"), "(nothing was thrown)");
  EXPECT_EQ(load(R"({"row": 5, "text_offset": 0})"),
            path_.string() + ": is shorter than when the state was saved, by 2 rows");
  EXPECT_EQ(load(R"({"row": 1, "text_offset": 20})"),
            path_.string() + ":2: is not the row it was when the state was saved");
  EXPECT_EQ(load(R"({"row": 3, "text_offset": 1})"),
            path_.string() + ":3: is not the row it was when the state was saved");
}

TEST_F(Parquet, ANullIsAnErrorAtItsRowOrPassedOver) {
  write(path_, {{"text", strings({"one", "two", std::nullopt, "four", std::nullopt})}}, {.group_rows = 2});
  EXPECT_EQ(message_of([&] { texts(path_); }),
            path_.string() + ":3: \"text\" is a string in every row, here it is null");
  const Read rest = read(source_of(path_, OnDataError::kSkip));
  EXPECT_EQ(rest.texts, (std::vector<std::string>{"one", "two", "four"}));
  EXPECT_EQ(rest.rows, (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(rest.skipped, 2);
  write(path_, {{"text", strings({"", ""})}});
  EXPECT_MESSAGE(texts(path_), "a.parquet: there is no document in it, only empty ones");
}

TEST_F(Parquet, AColumnOfAnotherTypeOrNameIsAnErrorOfTheFile) {
  write(path_, {{"text", integers(3)}});
  EXPECT_EQ(message_of([&] { texts(path_); }),
            path_.string() + ": \"text\" is a column of strings or bytes, here it is INT64");
  write(path_, {{"tetx", strings({"a"})}, {"id", integers(1)}});
  EXPECT_EQ(message_of([&] { texts(path_); }), path_.string() +
                                                   ": there is no column \"text\" (did you mean tetx?): name "
                                                   "that of the text with text_field; there are tetx, id");
  arrow::ListBuilder lists(arrow::default_memory_pool(), std::make_shared<arrow::StringBuilder>());
  check(lists.Append());
  write(path_, {{"text", lists.Finish().ValueOrDie()}});
  EXPECT_MESSAGE(texts(path_),
                 "a.parquet: \"text\" is a column of strings or bytes, here it is a group of columns");
  write(path_, {{"text",
                 arrow::StructArray::Make({strings({"a"})}, std::vector<std::string>{"text"}).ValueOrDie()}});
  EXPECT_MESSAGE(texts(path_), "here it is a group of columns");
  arrow::Decimal128Builder decimals(arrow::decimal128(30, 2));
  check(decimals.Append(arrow::Decimal128(1)));
  write(path_, {{"text", decimals.Finish().ValueOrDie()}});
  EXPECT_MESSAGE(texts(path_), "here it is FIXED_LEN_BYTE_ARRAY (Decimal(precision=30, scale=2))");
  // A source whose other files are good goes on with them.
  write(folder_ / "b.parquet", {{"text", strings({"good"})}});
  const Read rest = read(source_of(folder_.path(), OnDataError::kSkip));
  EXPECT_EQ(rest.texts, std::vector<std::string>{"good"});
  EXPECT_EQ(rest.skipped, 1);
}

TEST_F(Parquet, WhatCannotBeReadInAnyOrderIsRefused) {
  write(path_, {{"text", strings({"a"})}});
  for (const char* name : {"b.parquet.gz", "b.parquet.zst"}) {
    write_content(folder_ / name, content_of(path_));
    EXPECT_MESSAGE(texts(folder_ / name),
                   std::string(name) + ": a Parquet file is not read out of an archive: decompress it");
  }
  SourceConfig source = source_of("-");
  source.format = DocumentFormat::kParquet;
  EXPECT_MESSAGE(find_files(source), "standard input: a Parquet file cannot be read from there");
}

TEST_F(Parquet, ADamagedPageIsAnErrorWithTheRowBeforeIt) {
  write(path_, {{"text", strings({"one", "two", "a needle in it", "four"})}},
        {.group_rows = 2, .dictionary = false, .compression = arrow::Compression::UNCOMPRESSED});
  std::string bytes = content_of(path_);
  bytes.at(bytes.find("needle")) = 'N';
  write_content(path_, bytes);
  EXPECT_MESSAGE(texts(path_), path_.string() + ": cannot be read as Parquet behind row 2 (");
}

TEST_F(Parquet, ACutFileIsOneErrorWhereverItIsCut) {
  write(path_, {{"text", strings(values_)}}, {.group_rows = 15, .page_bytes = 64});
  const std::string whole = content_of(path_);
  for (size_t size = 1; size < whole.size(); size += size < whole.size() - 300 ? 37 : 1) {
    write_content(path_, whole.substr(0, size));
    const std::string message = message_of([&] { texts(path_); });
    ASSERT_TRUE(message.starts_with(path_.string() + ": cannot be read as Parquet ("))
        << size << ": " << message;
    ASSERT_TRUE(message.ends_with("): where it is damaged or cut short, copy or download the file again"))
        << message;
  }
  write_content(path_, "no Parquet file, but a text that is long enough to be one");
  EXPECT_MESSAGE(texts(path_), "cannot be read as Parquet (Invalid: Parquet magic bytes not found in footer");
}

TEST_F(Parquet, ADamagedPageIsAnErrorAndNeverAnotherText) {
  values_.resize(12);
  texts_.resize(12);
  write(path_, {{"text", strings(values_)}},
        {.group_rows = 5,
         .page_bytes = 64,
         .dictionary = false,
         .compression = arrow::Compression::UNCOMPRESSED});
  const std::string whole = content_of(path_);
  uint32_t metadata_size = 0;
  std::memcpy(&metadata_size, whole.data() + whole.size() - 8, 4);
  const size_t metadata = whole.size() - 8 - metadata_size;
  int errors = 0;
  for (size_t at = 4; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x14);
    write_content(path_, damaged);
    try {
      const auto found = texts(path_);
      // The metadata has no checksum: where it leads to a page that is whole, nobody can tell.
      if (at < metadata) {
        ASSERT_EQ(found, texts_) << "byte " << at;
      }
    } catch (const Error& error) {
      ++errors;
      ASSERT_EQ(std::string(error.what()).find(path_.string()), 0u) << error.what();
    }
  }
  EXPECT_GT(errors, 200);
}

TEST_F(Parquet, MetadataThatContradictsItselfIsAnError) {
  write(path_, {{"text", strings(values_)}}, {.group_rows = 15});
  const std::string whole = content_of(path_);
  // 40 rows, as Thrift writes it: a field of type i64 (0x16), zigzag.
  const size_t at = whole.rfind("\x16\x50\x19");
  ASSERT_NE(at, std::string::npos);
  std::string damaged = whole;
  damaged[at + 1] = 0x52;
  write_content(path_, damaged);
  EXPECT_EQ(
      message_of([&] { texts(path_); }),
      path_.string() +
          ": the Parquet file is damaged: it has 41 rows, its groups together 40: copy or download it again");
}

}  // namespace
}  // namespace blt
