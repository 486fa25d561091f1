// Lines that are too long to be held read as those that are held.
#include "data/long_line.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "blt/base/rng.h"
#include "data/document_reader.h"
#include "data/line_reader.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;

constexpr size_t kHeld = 64;

struct Read {
  std::vector<std::string> sequences;  // "[" opens a document and "]" closes it
  std::string error;                   // the last
  int errors = 0;
};

void read_on(DocumentReader& reader, size_t max_bytes, size_t most, Read& result) {
  while (result.sequences.size() + static_cast<size_t>(result.errors) < most) {
    try {
      const auto sequence = reader.next(max_bytes);
      if (!sequence) return;
      EXPECT_TRUE(!sequence->bytes.empty() && sequence->bytes.size() <= max_bytes);
      result.sequences.push_back((sequence->starts_document ? "[" : "") + sequence->bytes +
                                 (sequence->ends_document ? "]" : ""));
    } catch (const DocumentError& error) {
      result.error = error.what();
      ++result.errors;
    }
  }
}

Read read(const std::filesystem::path& path, size_t max_bytes, size_t held) {
  Read result;
  read_on(*DocumentReader::open({path, DocumentFormat::kJsonLines}, "text", held), max_bytes, 1000000,
          result);
  return result;
}

// Characters of a JSON string: plain, of several bytes, escaped, now and then broken.
std::string random_characters(Rng& rng, size_t count, bool may_break) {
  static const std::vector<std::string> kGood = {"a",
                                                 "b c",
                                                 "é",
                                                 "日本",
                                                 "😀",
                                                 "\\n",
                                                 "\\\"",
                                                 "\\\\",
                                                 "\\u0041",
                                                 "\\u00e9",
                                                 "\\ud83d\\ude00",
                                                 "\\uD83D\\uDE00",
                                                 "\\/",
                                                 ":{[,"};
  static const std::vector<std::string> kBad = {"\x80",       "\xf0\x9f", "\\x",     "\\u12", "\\ud83d",
                                                "\\ud83d\\n", "\x01",     "\\ude00", "\xff"};
  std::string result;
  for (size_t i = 0; i < count; ++i)
    result +=
        may_break && rng.below(200) == 0 ? kBad[rng.below(kBad.size())] : kGood[rng.below(kGood.size())];
  return result;
}

std::string random_line(Rng& rng) {
  static const std::vector<std::string> kBefore = {"",
                                                   R"("id": 7, )",
                                                   R"("a": {"text": "no"}, )",
                                                   R"("a": ["text", "no"], )",
                                                   R"( "t\"ext" : "text" , )",
                                                   R"("text": 3, )",
                                                   R"("x": tru, )"};
  static const std::vector<std::string> kAfter = {
      "", R"(, "z": null)", R"(, "a": {"b": [1, 2]})", " ", ",", R"(, "b": "x)", "]", R"(, "text": 3)"};
  return "{" + kBefore[rng.below(kBefore.size())] + (rng.below(8) == 0 ? R"("\u0074ext")" : R"("text")") +
         ": \"" + random_characters(rng, rng.below(120), rng.below(3) == 0) + "\"" +
         kAfter[rng.below(kAfter.size())] + "}";
}

TEST(LongLine, ReadsWhatIsReadOfHeldLines) {
  const TemporaryFolder folder;
  Rng rng(3, "long lines");
  int good = 0, bad = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string line = random_line(rng);
    const auto path = folder.write("a.jsonl", line + (rng.below(2) == 0 ? "\n{\"text\": \"next\"}" : ""));
    const size_t max_bytes = 1 + rng.below(rng.below(2) == 0 ? 10 : 1000);
    const Read held = read(path, max_bytes, LineReader::kLongestHeld),
               streamed = read(path, max_bytes, kHeld);
    ASSERT_EQ(streamed.errors, held.errors) << line << "\n" << held.error << "\n" << streamed.error;
    (held.errors == 0 ? good : bad) += line.size() > kHeld ? 1 : 0;
    if (held.errors == 0) {
      ASSERT_EQ(streamed.sequences, held.sequences) << line;
    } else {  // what comes after the broken line is the same
      ASSERT_TRUE(std::equal(held.sequences.rbegin(), held.sequences.rend(), streamed.sequences.rbegin()))
          << line;
      ASSERT_NE(streamed.error.find("a.jsonl:1: "), std::string::npos) << streamed.error;
    }
  }
  EXPECT_GT(good, 500);
  EXPECT_GT(bad, 200);
}

TEST(LongLine, GoesOnWhereItWasSaved) {
  const TemporaryFolder folder;
  Rng rng(4, "long lines");
  for (int round = 0; round < 60; ++round) {
    std::string lines;
    for (int i = 0; i < 3; ++i) lines += random_line(rng) + "\n";
    const auto path = folder.write("a.jsonl", lines);
    const size_t max_bytes = 1 + rng.below(100);
    const Read whole = read(path, max_bytes, kHeld);
    for (size_t stop = 0; stop <= whole.sequences.size() + static_cast<size_t>(whole.errors); ++stop) {
      Read result;
      const auto first = DocumentReader::open({path, DocumentFormat::kJsonLines}, "text", kHeld);
      read_on(*first, max_bytes, stop, result);
      StateWriter state;
      first->save(state);
      const auto second = DocumentReader::open({path, DocumentFormat::kJsonLines}, "text", kHeld);
      second->load(StateReader(state));
      read_on(*second, max_bytes, 1000000, result);
      ASSERT_EQ(result.sequences, whole.sequences) << lines << stop;
      ASSERT_EQ(result.errors, whole.errors) << lines << stop;
    }
  }
}

TEST(LongLine, SaysWhatItCannotDo) {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& line) {
    return read(folder.write("a.jsonl", line), 10, kHeld).error;
  };
  const std::string much(100, 'x');
  EXPECT_NE(error(R"({"id": ")" + much + R"(", "text": "a"})")
                .find("a.jsonl:1: a line of more than 64 bytes, in the first of which"),
            std::string::npos);
  EXPECT_NE(error(R"({"text": ")" + much + R"(", "id": ")" + much + R"("})")
                .find("more than 64 bytes behind its text"),
            std::string::npos);
  EXPECT_NE(error(R"({"text": ")" + much + R"(", "text": "b"})").find("\"text\" is there twice"),
            std::string::npos);
  EXPECT_NE(error(R"({"text": ")" + much).find("the line ends within its text"), std::string::npos);
  EXPECT_NE(error(R"({"text": ")" + much + "\\x" + much + R"("})").find("behind the"), std::string::npos);
}

}  // namespace
}  // namespace blt
