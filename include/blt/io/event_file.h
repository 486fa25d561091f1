// Numbers for TensorBoard: its event files (docs/formats.md has the layout).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "blt/base/files.h"

namespace blt {

// An event file, events.out.tfevents.<time>.<host>.<process>.<number>, in a folder that is there: TFRecord frames with masked CRC-32C around
// Event protocol buffers. Every write is flushed. Not thread-safe.
class EventFile {
 public:
  struct Scalar {
    std::string name;
    double value = 0.0;  // stored as float32
  };

  // first_step: steps done before; TensorBoard drops what earlier files of the folder say about later ones. Throws blt::Error when the
  // file cannot be written, as write() does: the event is then not in it, and the next one may be.
  EventFile(const std::filesystem::path& folder, int64_t first_step);

  void write(int64_t step, const std::vector<Scalar>& scalars);

  const std::filesystem::path& path() const { return path_; }

 private:
  void write_record(std::string_view event);

  std::filesystem::path path_;
  std::optional<AppendFile> file_;
};

// CRC-32C (Castagnoli) of bytes.
uint32_t crc32c(std::string_view bytes);

}  // namespace blt
