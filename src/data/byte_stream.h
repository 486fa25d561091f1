// The bytes of a file in order, decompressed by what its name says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>

namespace blt {

// Errors are blt::Error and name the file and, in archives, the offset in the compressed file. Not
// thread-safe.
class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Reads up to `size` bytes; fewer only at the end.
  size_t read(char* buffer, size_t size);
  // Goes forward without handing out; throws when the file ends before that.
  virtual void skip(uint64_t bytes);

  // "-" is standard input.
  static std::unique_ptr<ByteStream> open(const std::filesystem::path& path);

 protected:
  explicit ByteStream(std::filesystem::path path) : path_(std::move(path)) {}
  // Some bytes, at least one unless the stream is at its end.
  virtual size_t read_some(char* buffer, size_t size) = 0;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// What a name says about compression.
enum class Compression { kNone, kGzip, kZstd };
Compression compression_of(const std::filesystem::path& path);

// Made by open(): the decompressed bytes of `raw`. Members and frames may follow one another.
std::unique_ptr<ByteStream> open_gzip(const std::filesystem::path& path, std::unique_ptr<ByteStream> raw);
std::unique_ptr<ByteStream> open_zstd(const std::filesystem::path& path, std::unique_ptr<ByteStream> raw);

}  // namespace blt
