#include "data/byte_stream.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <vector>

#include "blt/base/error.h"

namespace blt {
namespace {

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const std::filesystem::path& path)
      : ByteStream(path),
        descriptor_(path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) fail("cannot be opened");
  }
  ~PlainStream() override {
    if (descriptor_ != STDIN_FILENO) ::close(descriptor_);
  }

  void skip(uint64_t bytes) override {
    struct stat status {};
    const bool seekable = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    const off_t here = seekable ? ::lseek(descriptor_, 0, SEEK_CUR) : -1;
    if (here < 0 || static_cast<uint64_t>(status.st_size - std::min(here, status.st_size)) < bytes)
      return ByteStream::skip(bytes);
    if (::lseek(descriptor_, static_cast<off_t>(bytes), SEEK_CUR) < 0) fail("cannot be read");
  }

 protected:
  size_t read_some(char* buffer, size_t size) override {
    ssize_t count = 0;
    do count = ::read(descriptor_, buffer, size);
    while (count < 0 && errno == EINTR);
    if (count < 0) fail("cannot be read");
    return static_cast<size_t>(count);
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    const std::string reason = std::generic_category().message(errno);
    throw Error(fmt::format("{}: {}: {}", path() == "-" ? "standard input" : path().string(), what, reason));
  }
  int descriptor_;
};

}  // namespace

size_t ByteStream::read(char* buffer, size_t size) {
  size_t total = 0;
  while (total < size) {
    const size_t count = read_some(buffer + total, size - total);
    if (count == 0) break;
    total += count;
  }
  return total;
}

void ByteStream::skip(uint64_t bytes) {
  std::vector<char> buffer(std::min<uint64_t>(bytes, 1 << 18));
  while (bytes > 0) {
    const size_t count = read(buffer.data(), std::min<uint64_t>(bytes, buffer.size()));
    if (count == 0)
      throw Error(
          fmt::format("{}: is shorter than when the state was saved, by {} bytes", path().string(), bytes));
    bytes -= count;
  }
}

Compression compression_of(const std::filesystem::path& path) {
  const std::filesystem::path extension = path.extension();
  if (extension == ".gz") return Compression::kGzip;
  if (extension == ".zst") return Compression::kZstd;
  return Compression::kNone;
}

std::unique_ptr<ByteStream> ByteStream::open(const std::filesystem::path& path) {
  auto raw = std::make_unique<PlainStream>(path);
  switch (compression_of(path)) {
    case Compression::kGzip:
      return open_gzip(path, std::move(raw));
    case Compression::kZstd:
      return open_zstd(path, std::move(raw));
    case Compression::kNone:
      return raw;
  }
  return raw;
}

}  // namespace blt
