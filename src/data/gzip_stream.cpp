#include <fmt/format.h>
#include <zlib.h>

#include <vector>

#include "blt/base/error.h"
#include "data/byte_stream.h"

namespace blt {
namespace {

class GzipStream : public ByteStream {
 public:
  GzipStream(const std::filesystem::path& path, std::unique_ptr<ByteStream> raw)
      : ByteStream(path), raw_(std::move(raw)), input_(1 << 16) {
    if (inflateInit2(&zlib_, MAX_WBITS + 16) != Z_OK) throw std::bad_alloc();  // + 16: gzip, and nothing else
  }
  ~GzipStream() override { inflateEnd(&zlib_); }

 protected:
  size_t read_some(char* buffer, size_t size) override {
    zlib_.next_out = reinterpret_cast<Bytef*>(buffer);
    zlib_.avail_out = static_cast<uInt>(std::min<size_t>(size, 1 << 30));
    const uInt wanted = zlib_.avail_out;
    while (zlib_.avail_out == wanted) {
      if (zlib_.avail_in == 0 && !refill()) {
        if (inside_member_) fail("the archive is truncated: copy or download the file again");
        if (offset_ == 0) fail("is no gzip file: it is empty");
        return 0;
      }
      if (!inside_member_) inflateReset(&zlib_);
      inside_member_ = true;
      const int status = inflate(&zlib_, Z_NO_FLUSH);
      if (status == Z_STREAM_END)
        inside_member_ = false;
      else if (status != Z_OK)
        fail(fmt::format("the archive is damaged ({}): copy or download the file again",
                         zlib_.msg ? zlib_.msg : zError(status)));
    }
    return wanted - zlib_.avail_out;
  }

 private:
  bool refill() {
    const size_t count = raw_->read(input_.data(), input_.size());
    offset_ += count;
    zlib_.next_in = reinterpret_cast<Bytef*>(input_.data());
    zlib_.avail_in = static_cast<uInt>(count);
    return count > 0;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}@{}: {}", path().string(), offset_ - zlib_.avail_in, what));
  }

  std::unique_ptr<ByteStream> raw_;
  std::vector<char> input_;
  uint64_t offset_ = 0;  // of the compressed file, where input_ ends
  bool inside_member_ = false;
  z_stream zlib_{};
};

}  // namespace

std::unique_ptr<ByteStream> open_gzip(const std::filesystem::path& path, std::unique_ptr<ByteStream> raw) {
  return std::make_unique<GzipStream>(path, std::move(raw));
}

}  // namespace blt
