#include <fmt/format.h>
#include <zstd.h>

#include <vector>

#include "blt/base/error.h"
#include "data/byte_stream.h"

namespace blt {
namespace {

class ZstdStream : public ByteStream {
 public:
  ZstdStream(const std::filesystem::path& path, std::unique_ptr<ByteStream> raw)
      : ByteStream(path), raw_(std::move(raw)), buffer_(ZSTD_DStreamInSize()), zstd_(ZSTD_createDCtx()) {
    if (!zstd_) throw std::bad_alloc();
    ZSTD_DCtx_setParameter(zstd_.get(), ZSTD_d_windowLogMax,
                           ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  }

 protected:
  size_t read_some(char* buffer, size_t size) override {
    ZSTD_outBuffer output{buffer, size, 0};
    while (output.pos == 0) {
      // The decoder may still hold bytes of what it has read, so ask it before the file.
      if (input_.pos == input_.size && !(inside_frame_ && full_) && !refill()) {
        if (inside_frame_) fail("the archive is truncated: copy or download the file again");
        if (offset_ == 0) fail("is no zstd file: it is empty");
        return 0;
      }
      const size_t left = ZSTD_decompressStream(zstd_.get(), &output, &input_);
      if (ZSTD_isError(left))
        fail(fmt::format("the archive is damaged ({}): copy or download the file again",
                         ZSTD_getErrorName(left)));
      inside_frame_ = left != 0;
      full_ = output.pos == output.size;
    }
    return output.pos;
  }

 private:
  bool refill() {
    input_ = {buffer_.data(), raw_->read(buffer_.data(), buffer_.size()), 0};
    offset_ += input_.size;
    return input_.size > 0;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(fmt::format("{}@{}: {}", path().string(), offset_ - (input_.size - input_.pos), what));
  }

  struct Free {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  std::unique_ptr<ByteStream> raw_;
  std::vector<char> buffer_;
  std::unique_ptr<ZSTD_DCtx, Free> zstd_;
  ZSTD_inBuffer input_{nullptr, 0, 0};
  uint64_t offset_ = 0;  // of the compressed file, where input_ ends
  bool inside_frame_ = false;
  bool full_ = false;  // the last output was filled to its end
};

}  // namespace

std::unique_ptr<ByteStream> open_zstd(const std::filesystem::path& path, std::unique_ptr<ByteStream> raw) {
  return std::make_unique<ZstdStream>(path, std::move(raw));
}

}  // namespace blt
