#include "blt/data/documents.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "archives.h"
#include "blt/base/error.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using Texts = std::vector<std::string>;

SourceConfig source_of(std::vector<std::filesystem::path> paths) {
  SourceConfig source;
  source.paths = std::move(paths);
  return source;
}

// Every document whole, put together again from its sequences.
Texts read(const SourceConfig& source, int64_t sequence_bytes = 5) {
  Documents documents(find_files(source),
                      {.sequence_bytes = sequence_bytes, .text_field = source.text_field, .file_order = {}});
  Texts result;
  bool inside = false;
  while (auto sequence = documents.next()) {
    EXPECT_EQ(sequence->starts_document, !inside);
    EXPECT_TRUE(sequence->bytes.size() == static_cast<size_t>(sequence_bytes) || sequence->ends_document);
    EXPECT_GE(sequence->bytes.size(), 1u);
    if (sequence->starts_document) result.emplace_back();
    result.back() += sequence->bytes;
    inside = !sequence->ends_document;
  }
  EXPECT_FALSE(inside);
  EXPECT_FALSE(documents.next());
  return result;
}
Texts read(const std::filesystem::path& path) { return read(source_of({path})); }

TEST(Documents, ATextFileIsOneDocumentOfAnyBytes) {
  const TemporaryFolder folder;
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  EXPECT_EQ(read(folder.write("a.bin", bytes)), Texts{bytes});
  EXPECT_EQ(read(folder.write("a.txt.gz", gzip(bytes))), Texts{bytes});
  EXPECT_EQ(read(folder.write("a.txt.zst", zstd(bytes))), Texts{bytes});
}

TEST(Documents, ATextIsCutExactly) {
  const TemporaryFolder folder;
  for (const size_t size : {1, 4, 5, 6, 10, 11}) {
    const std::string text(size, 'x');
    EXPECT_EQ(read(folder.write("a.txt", text)), Texts{text}) << size;
  }
}

TEST(Documents, EveryLineOfJsonLinesIsADocument) {
  const TemporaryFolder folder;
  const std::string lines = R"({"text": "one"}
{"id": [1, {"text": "no"}], "text": "two\nand \u00e9 \ud83d\ude00 \u0000.", "z": null}

   {"text":""}
{"text": "first", "text": "last"})";
  const Texts expected = {"one", std::string("two\nand é 😀 \0.", 18), "last"};
  EXPECT_EQ(read(folder.write("a.jsonl", lines)), expected);
  EXPECT_EQ(read(folder.write("b.ndjson", lines + "\r\n")), expected);
  EXPECT_EQ(read(folder.write("a.jsonl.gz", gzip(lines))), expected);
  EXPECT_EQ(read(folder.write("a.jsonl.zst", zstd(lines + "\n"))), expected);
  EXPECT_EQ(read(folder.write("a.json", lines)), Texts{lines})
      << "only .jsonl and .ndjson are JSON Lines by themselves";
}

TEST(Documents, FormatAndTextFieldAreConfigurable) {
  const TemporaryFolder folder;
  SourceConfig source = source_of({folder.write("a.txt", "{\"body\": \"b\", \"text\": 3}\n")});
  source.format = DocumentFormat::kJsonLines;
  source.text_field = "body";
  EXPECT_EQ(read(source), Texts{"b"});
  source.paths = {folder.write("a.jsonl", "{}")};
  source.format = DocumentFormat::kText;
  EXPECT_EQ(read(source), Texts{"{}"});
}

TEST(Documents, LinesMayBeLongerThanTheBuffer) {
  const TemporaryFolder folder;
  const std::string a(600000, 'a'), b(262144 - 13, 'b');
  const Texts documents = read(source_of({folder.write("a.jsonl", "{\"text\": \"" + b + "\"}\n{\"text\": \"" +
                                                                      a + "\"}\n{\"text\":\"c\"}")}),
                               1000);
  EXPECT_EQ(documents, (Texts{b, a, "c"}));
}

TEST(Documents, AFolderIsAllItsFilesSortedWithoutHiddenAndEmptyOnes) {
  const TemporaryFolder folder;
  folder.write("b.txt", "B");
  folder.write("a/z.jsonl", "{\"text\": \"Z\"}");
  folder.write("a/c.txt.gz", gzip("C"));
  folder.write(".hidden", "no");
  folder.write(".git/x", "no");
  folder.write("empty", "");
  std::filesystem::create_symlink("nowhere", folder / "dangling");
  EXPECT_EQ(read(folder.path()), (Texts{"C", "Z", "B"}));
  EXPECT_EQ(read(source_of({folder / "b.txt", folder / "a"})), (Texts{"B", "C", "Z"}))
      << "the order of the paths stays";
}

TEST(Documents, GlobsMatchNamesAndFolders) {
  const TemporaryFolder folder;
  folder.write("a1.txt", "1");
  folder.write("a2.txt", "2");
  folder.write("b1.txt", "3");
  folder.write("x/a3.txt", "4");
  folder.write("x/y/a4.txt", "5");
  folder.write("x/.a5.txt", "no");
  folder.write("odd[1].txt", "6");
  EXPECT_EQ(read(folder / "a?.txt"), (Texts{"1", "2"}));
  EXPECT_EQ(read(folder / "[ab]1.*"), (Texts{"1", "3"}));
  EXPECT_EQ(read(folder / "*/a*"), (Texts{"4"}));
  EXPECT_EQ(read(folder / "**/a*.txt"), (Texts{"1", "2", "4", "5"}));
  EXPECT_EQ(read(folder / "x/**"), (Texts{"4", "5"}));
  EXPECT_EQ(read(folder / "odd[1].txt"), (Texts{"6"})) << "a path that exists is itself";
  EXPECT_MESSAGE(find_files(source_of({folder / "*.md"})), "*.md: no file matches this pattern");
  EXPECT_MESSAGE(find_files(source_of({folder / "none/*.md"})), "there is no folder");
}

TEST(Documents, AMissingFileNamesWhatIsNear) {
  const TemporaryFolder folder;
  folder.write("train.txt", "x");
  EXPECT_MESSAGE(
      find_files(source_of({folder / "trian.txt"})),
      (folder / "trian.txt").string() + ": there is no such file or folder (did you mean train.txt?)");
  EXPECT_MESSAGE(find_files(source_of({folder / "no/train.txt"})),
                 "nor a folder " + (folder / "no").string());
  EXPECT_MESSAGE(find_files(source_of({})), "there is no data to read");
}

TEST(Documents, EmptyFilesAndFoldersAreErrors) {
  const TemporaryFolder folder;
  EXPECT_MESSAGE(find_files(source_of({folder.write("a.txt", "")})), "a.txt: the file is empty");
  EXPECT_MESSAGE(find_files(source_of({folder.path()})), "there is no file with text in this folder");
  EXPECT_MESSAGE(read(folder.write("a.gz", gzip(""))), "a.gz: there is no document in it");
  EXPECT_MESSAGE(read(folder.write("a.jsonl", "\n{\"text\": \"\"}\n")),
                 "a.jsonl: there is no document in it");
}

TEST(Documents, AFileThatMayNotBeReadIsAnError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const TemporaryFolder folder;
  const auto path = folder.write("a.txt", "x");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  EXPECT_MESSAGE(find_files(source_of({path})), "a.txt: cannot be read: Permission denied");
}

TEST(Documents, BadLinesAreErrorsWithTheirNumber) {
  const TemporaryFolder folder;
  const std::string good = "{\"text\": \"fine\"}\n\n";
  const auto message = [&](const std::string& line) {
    const auto path = folder.write("a.jsonl", good + line + "\n" + good);
    const std::string text = message_of([&] { read(path); });
    const std::string where = path.string() + ":3: ";
    EXPECT_TRUE(text.starts_with(where)) << text;
    return text.substr(std::min(where.size(), text.size()));
  };
  EXPECT_TRUE(message("{\"text\": x}").starts_with("invalid JSON at column 10: "))
      << message("{\"text\": x}");
  EXPECT_TRUE(message("{\"text\": \"a\"").starts_with("invalid JSON at "));
  EXPECT_TRUE(message("{\"text\": \"a\"} {\"text\": \"b\"}").starts_with("invalid JSON at "));
  EXPECT_TRUE(message("{\"text\": \"\\ud800\"}").starts_with("invalid JSON at "));
  EXPECT_TRUE(message("{\"text\": \"\xff\"}").starts_with("invalid JSON at "));
  EXPECT_NE(message("{\"body\": \"a\"}").find("there is no \"text\""), std::string::npos);
  EXPECT_NE(message("{\"a\": {\"text\": \"a\"}}").find("there is no \"text\""), std::string::npos);
  EXPECT_NE(message("{\"text\": 3}").find("is a string in every line, here it is a number"),
            std::string::npos);
  EXPECT_NE(message("{\"text\": null}").find("here it is null"), std::string::npos);
  EXPECT_NE(message("{\"text\": [\"a\"]}").find("here it is an array"), std::string::npos);
  EXPECT_NE(message("[\"text\"]").find("this one is an array"), std::string::npos);
  EXPECT_NE(message("\"text\"").find("this one is a string"), std::string::npos);
}

TEST(Documents, DeepNestingIsNoCrash) {
  const TemporaryFolder folder;
  const std::string deep =
      "{\"a\": " + std::string(200000, '[') + std::string(200000, ']') + ", \"text\": \"t\"}";
  EXPECT_MESSAGE(read(folder.write("a.jsonl", deep)), "a.jsonl:1: invalid JSON: nested more than 1024 deep");
  const std::string less_deep =
      "{\"a\": " + std::string(1000, '[') + std::string(1000, ']') + ", \"text\": \"t\"}";
  EXPECT_EQ(read(folder.write("a.jsonl", less_deep)), Texts{"t"});
  EXPECT_MESSAGE(read(folder.write("b.jsonl", std::string(200000, '['))), "b.jsonl:1: invalid JSON");
}

TEST(Documents, BadLinesAreErrorsWithTheByteWhereTheyBegin) {
  const TemporaryFolder folder;
  const std::string good = "{\"text\": \"a\"}\n";  // 14 bytes
  for (const char* bad : {"{\"body\": \"a\"}", "{\"text\": 3}", "[1]", "{\"text\": no}"}) {
    const std::string lines = good + good + bad;
    const auto in_text = folder.write("a.jsonl", lines), in_archive = folder.write("a.jsonl.gz", gzip(lines));
    for (const auto& path : {in_text, in_archive}) {
      const std::string message = message_of([&] { read(path); });
      EXPECT_TRUE(message.starts_with(path.string() + ":3: ")) << message;
      EXPECT_TRUE(message.ends_with(" (the line begins at byte 28)")) << message;
    }
  }
}

TEST(Documents, ATruncatedArchiveOfLinesIsAnErrorAtItsOffset) {
  const TemporaryFolder folder;
  const std::string archive = gzip("{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  EXPECT_MESSAGE(read(folder.write("a.jsonl.gz", archive.substr(0, 30))),
                 "a.jsonl.gz@30: the archive is truncated");
}

TEST(Documents, StandardInputIsADash) {
  const TemporaryFolder folder;
  folder.write("in", "from a pipe");
  const int saved = ::dup(STDIN_FILENO), file = ::open((folder / "in").c_str(), O_RDONLY);
  ::dup2(file, STDIN_FILENO);
  const Texts documents = read("-");
  ::dup2(saved, STDIN_FILENO);
  ::close(saved);
  ::close(file);
  EXPECT_EQ(documents, Texts{"from a pipe"});
}

TEST(Documents, ARandomFileOrderHasEveryFileOnce) {
  const TemporaryFolder folder;
  Texts expected;
  for (int i = 0; i < 20; ++i) {
    expected.push_back(std::string(1, static_cast<char>('a' + i)));
    folder.write(expected.back(), expected.back());
  }
  const auto order = [&](uint64_t seed) {
    Documents documents(find_files(source_of({folder.path()})), {.file_order = Rng(seed, "files")});
    Texts result;
    while (auto sequence = documents.next()) result.push_back(sequence->bytes);
    return result;
  };
  Texts one = order(1);
  EXPECT_EQ(one, order(1));
  EXPECT_NE(one, order(2));
  EXPECT_NE(one, expected);
  std::sort(one.begin(), one.end());
  EXPECT_EQ(one, expected);
}

}  // namespace
}  // namespace blt
