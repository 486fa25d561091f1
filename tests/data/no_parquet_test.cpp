// What a build without Arrow says to a Parquet file.
#include <gtest/gtest.h>

#include "blt/base/error.h"
#include "blt/data/documents.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

TEST(NoParquet, AFileIsOneErrorThatSaysHowToReadIt) {
  const blt_test::TemporaryFolder folder;
  SourceConfig source;
  source.paths = {folder.write("a.parquet", "PAR1")};
  source.on_error = OnDataError::kSkip;  // passes over broken files, not over those of a missing library
  EXPECT_EQ(message_of([&] { find_files(source); }),
            (folder / "a.parquet").string() +
                ": this build of libblt reads no Parquet: it was configured without Arrow (run tools/setup "
                "--parquet, "
                "then configure and build again)");
  source.paths = {folder.write("text", "x")};
  source.format = DocumentFormat::kParquet;
  EXPECT_MESSAGE(find_files(source), "text: this build of libblt reads no Parquet");
  source.format = DocumentFormat::kText;
  source.paths = {folder / "a.parquet"};
  EXPECT_EQ(find_files(source).size(), 1u) << "as the bytes that it is, if one says so";
}

}  // namespace
}  // namespace blt
