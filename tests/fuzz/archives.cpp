// Reads .gz and .zst files: bytes, an error, or both; never more than the archive can hold, and the same in reads of any size.
#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_getFrameHeader
#include <zstd.h>

#include "blt/base/error.h"
#include "data/byte_stream.h"
#include "fuzz.h"

namespace {

// Bytes that are read: small archives may hold gigabytes, and AddressSanitizer maps buffers of more than 128 KiB anew each time.
constexpr size_t kMost = 100000;

std::string read(const std::filesystem::path& path, size_t piece) {
  std::string result;
  try {
    const auto stream = blt::ByteStream::open(path);
    std::string buffer(piece, '\0');
    while (result.size() < kMost) {
      const size_t count = stream->read(buffer.data(), piece);
      blt_fuzz::require(count <= piece, "no more than was asked for");
      result.append(buffer, 0, count);
      if (count < piece) return result;
    }
  } catch (const blt::Error& error) {
    blt_fuzz::require(std::string(error.what()).find(path.string() + "@") == 0,
                      "an error names file and offset");
    return result + "!";
  }
  return result.substr(0, kMost);
}

// Whether a frame asks for a window that is large: AddressSanitizer has to mark all of it, up to 2 GiB for a few bytes of input, and the
// reader would hardly get a turn. tests/data/byte_stream_test.cpp reads such an archive.
bool wants_large_window(std::string_view archive) {
  constexpr unsigned long long kLarge = 8 << 20;
  while (!archive.empty()) {
    ZSTD_frameHeader header;
    if (ZSTD_getFrameHeader(&header, archive.data(), archive.size()) != 0)
      return false;  // damaged or cut short
    if (header.frameType == ZSTD_frame && header.windowSize > kLarge) return true;
    const size_t frame = ZSTD_findFrameCompressedSize(archive.data(), archive.size());
    if (ZSTD_isError(frame)) return false;
    archive.remove_prefix(frame);
  }
  return false;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view archive(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (wants_large_window(archive)) return 0;
  const char* name = data[0] % 2 == 0 ? "archive.gz" : "archive.zst";
  const auto path = blt_fuzz::write(name, archive);
  const std::string whole = read(path, kMost), pieces = read(path, 4096);
  // An error comes when its byte is asked for, so the bytes before it may be fewer in one of the two.
  const auto text = [](const std::string& result) {
    return std::string_view(result).substr(0, result.find_last_not_of('!') + 1);
  };
  const size_t common = std::min(text(whole).size(), text(pieces).size());
  blt_fuzz::require(text(whole).substr(0, common) == text(pieces).substr(0, common),
                    "reads of any size give the same bytes");
  return 0;
}
