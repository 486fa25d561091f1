#include "data/byte_stream.h"

#include <gtest/gtest.h>

#include "archives.h"
#include "blt/base/error.h"
#include "blt/base/rng.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;

// Bytes that compress, of all values.
std::string some_bytes(size_t size, uint64_t seed) {
  Rng rng(seed, "bytes");
  std::string result;
  while (result.size() < size) result += std::string(1 + rng.below(9), static_cast<char>(rng.below(256)));
  result.resize(size);
  return result;
}

// Everything, in reads of random sizes.
std::string read_all(const std::filesystem::path& path, uint64_t skip = 0) {
  const auto stream = ByteStream::open(path);
  stream->skip(skip);
  Rng rng(5, "sizes");
  std::string result;
  while (true) {
    std::string piece(1 + rng.below(200000), '\0');
    const size_t count = stream->read(piece.data(), piece.size());
    result.append(piece, 0, count);
    if (count < piece.size()) return result;
  }
}

TEST(ByteStream, ReadsPlainAndCompressedFilesAlike) {
  const TemporaryFolder folder;
  for (const size_t size : {1, 1000, 65536, 1000000}) {
    const std::string bytes = some_bytes(size, size);
    EXPECT_EQ(read_all(folder.write("a.txt", bytes)), bytes);
    EXPECT_EQ(read_all(folder.write("a.txt.gz", gzip(bytes))), bytes);
    EXPECT_EQ(read_all(folder.write("a.txt.zst", zstd(bytes))), bytes);
  }
}

TEST(ByteStream, ReadsHighlyCompressedBytes) {
  const TemporaryFolder folder;
  const std::string bytes(5000000, 'x');
  EXPECT_EQ(read_all(folder.write("a.gz", gzip(bytes))), bytes);
  EXPECT_EQ(read_all(folder.write("a.zst", zstd(bytes))), bytes);
}

// As `zstd --long=31` makes them. The fuzzer of archives leaves these out.
TEST(ByteStream, AZstdWindowOfTwoGibibytesIsRead) {
  const TemporaryFolder folder;
  const std::string magic = "\x28\xb5\x2f\xfd";
  const std::string header("\x00\xa8", 2);          // no size and no checksum; a window of 2^(10 + 21) bytes
  const std::string last_block("\x29\x00\x00", 3);  // of 5 bytes as they are
  EXPECT_EQ(read_all(folder.write("a.zst", magic + header + last_block + "hello")), "hello");
}

TEST(ByteStream, MembersAndFramesMayFollowOneAnother) {
  const TemporaryFolder folder;
  const std::string a = some_bytes(100000, 1), b = some_bytes(7, 2);
  EXPECT_EQ(read_all(folder.write("a.gz", gzip(a) + gzip("") + gzip(b))), a + b);
  EXPECT_EQ(read_all(folder.write("a.zst", zstd(a) + zstd("") + zstd(b))), a + b);
}

TEST(ByteStream, SkippingIsReadingOn) {
  const TemporaryFolder folder;
  const std::string bytes = some_bytes(300000, 3);
  for (const auto& path :
       {folder.write("a", bytes), folder.write("a.gz", gzip(bytes)), folder.write("a.zst", zstd(bytes))}) {
    for (const size_t skip : {size_t{0}, size_t{1}, size_t{262145}, bytes.size()})
      EXPECT_EQ(read_all(path, skip), bytes.substr(skip)) << path;
    EXPECT_MESSAGE(read_all(path, bytes.size() + 3), "shorter than when the state was saved, by 3 bytes");
  }
}

TEST(ByteStream, AnArchiveCutAnywhereIsAnErrorWithItsOffset) {
  const TemporaryFolder folder;
  const std::string bytes = some_bytes(2000, 4);
  for (const auto& [name, archive] : {std::pair{"a.gz", gzip(bytes)}, std::pair{"a.zst", zstd(bytes)}})
    for (size_t size = 1; size < archive.size(); ++size) {
      const auto path = folder.write(name, archive.substr(0, size));
      EXPECT_MESSAGE(read_all(path),
                     path.string() + "@" + std::to_string(size) + ": the archive is truncated");
    }
}

TEST(ByteStream, ADamagedArchiveIsAnError) {
  const TemporaryFolder folder;
  const std::string bytes = some_bytes(2000, 4);
  std::string archive = gzip(bytes);
  for (size_t i = 10; i < archive.size(); ++i) {  // behind the header, of which some flags may change freely
    std::string damaged = archive;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
    EXPECT_THROW(read_all(folder.write("a.gz", damaged)), Error) << i;
  }
  EXPECT_MESSAGE(read_all(folder.write("a.gz", bytes)), "the archive is damaged");
  EXPECT_MESSAGE(read_all(folder.write("a.zst", bytes)), "the archive is damaged");
  EXPECT_MESSAGE(read_all(folder.write("a.gz", archive + "more")), "the archive is damaged");
}

TEST(ByteStream, AMissingFileIsAnErrorWithItsReason) {
  EXPECT_MESSAGE(ByteStream::open("/nowhere/a.txt"), "/nowhere/a.txt: cannot be opened: No such file");
}

}  // namespace
}  // namespace blt
