// Parquet and JSON Lines in one process, and the order in which they come: Arrow and libblt each bring a simdjson, of different versions.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "blt/data/documents.h"
#include "temporary_folder.h"

namespace blt {
namespace {

// Written by pyarrow 26.0.1:
//   texts = ["one", "zwei und é", "one", "", "four\n", "one"]
//   pq.write_table(pa.table({"id": range(6), "text": pa.array(texts).dictionary_encode()}), path, compression="zstd", row_group_size=4)
const std::filesystem::path kParquet = std::filesystem::path(BLT_GOLDEN_DIR) / "pyarrow.parquet";
const std::vector<std::string> kTexts = {"one", "zwei und é", "one", "four\n", "one"};

TEST(ParquetBesideJson, BothAreRead) {
  const blt_test::TemporaryFolder folder;
  const auto lines = folder.write("a.jsonl", "{\"id\": [1, {}], \"text\": \"a line \\u00e9\"}\n");
  std::vector<std::string> expected = {"a line é"}, texts;
  expected.insert(expected.end(), kTexts.begin(), kTexts.end());
  expected.push_back("a line é");
  SourceConfig source;
  source.paths = {lines, kParquet, lines};
  Documents documents(find_files(source), {});
  while (const auto sequence = documents.next()) texts.push_back(sequence->bytes);
  EXPECT_EQ(texts, expected);
}

}  // namespace
}  // namespace blt
