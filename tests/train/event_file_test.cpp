#include "blt/io/event_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "temporary_folder.h"

namespace blt {
namespace {

uint64_t little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

uint32_t unmasked(std::string_view stored) {
  const auto rotated = static_cast<uint32_t>(little_endian(stored)) - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

// The records of a file, their frames checked.
std::vector<std::string> records(const std::filesystem::path& path) {
  const std::string bytes = read_file(path);
  std::vector<std::string> result;
  for (size_t at = 0; at < bytes.size();) {
    const std::string length = bytes.substr(at, 8);
    EXPECT_EQ(unmasked(bytes.substr(at + 8, 4)), crc32c(length));
    const std::string data = bytes.substr(at + 12, little_endian(length));
    EXPECT_EQ(unmasked(bytes.substr(at + 12 + data.size(), 4)), crc32c(data));
    result.push_back(data);
    at += 16 + data.size();
  }
  return result;
}

TEST(EventFile, ChecksumIsCrc32c) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c(""), 0u);
}

TEST(EventFile, HoldsEventsByTheProtocolBuffersLayout) {
  const blt_test::TemporaryFolder folder;
  EventFile file(folder.path(), 0);
  file.write(300, {{"a", 0.5}, {"train/loss", -2.0}});
  const std::vector<std::string> found = records(file.path());
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].substr(9), std::string("\x1a\x0d") + "brain.Event:2");
  // After the wall time (a tag and a double): step 300 as a varint, a summary of two values.
  const std::string values = std::string("\x0a\x08\x0a\x01") + "a" + std::string("\x15\x00\x00\x00\x3f", 5) +
                             "\x0a\x11\x0a\x0a" + "train/loss" + std::string("\x15\x00\x00\x00\xc0", 5);
  EXPECT_EQ(found[1].substr(9), std::string("\x10\xac\x02\x2a") + static_cast<char>(values.size()) + values);
  EXPECT_EQ(found[1][0], '\x09');
  double wall_time = 0;
  std::memcpy(&wall_time, found[1].data() + 1, 8);
  EXPECT_GT(wall_time, 1.7e9);
}

TEST(EventFile, TellsThatAResumedRunGoesOnFromItsStep) {
  const blt_test::TemporaryFolder folder;
  const EventFile file(folder.path(), 5);
  const std::vector<std::string> found = records(file.path());
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[1].substr(9), "\x10\x06\x3a\x02\x08\x01");
}

TEST(EventFile, RefusesAMissingFolder) { EXPECT_THROW(EventFile("/nowhere/at/all", 0), Error); }

}  // namespace
}  // namespace blt
