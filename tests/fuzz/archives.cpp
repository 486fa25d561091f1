// Reads .gz and .zst files: bytes, an error, or both; never more than the archive can hold, and the same in reads of any size.
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

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const char* name = data[0] % 2 == 0 ? "archive.gz" : "archive.zst";
  const auto path = blt_fuzz::write(name, {reinterpret_cast<const char*>(data) + 1, size - 1});
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
