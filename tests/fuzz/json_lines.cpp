// Reads JSON Lines: whatever is read has to be what a save at any point and a load give too.
#include <vector>

#include "blt/base/error.h"
#include "data/document_reader.h"
#include "fuzz.h"

namespace {

using blt::DocumentReader;

// Documents and errors up to the end.
std::vector<std::string> read(DocumentReader& reader, size_t max_bytes) {
  std::vector<std::string> result;
  while (true) {
    try {
      const auto sequence = reader.next(max_bytes);
      if (!sequence) return result;
      blt_fuzz::require(!sequence->bytes.empty() && sequence->bytes.size() <= max_bytes,
                        "a sequence has 1 to max_bytes bytes");
      result.push_back((sequence->starts_document ? "[" : "(") + sequence->bytes +
                       (sequence->ends_document ? "]" : ")"));
    } catch (const blt::DocumentError& error) {
      result.push_back(error.what());
    }
  }
}

// Holds any line that libFuzzer makes, in a buffer that costs less than the rest: AddressSanitizer maps those of more than 128 KiB anew each time.
constexpr size_t kWhole = 8192;

// held: of a line, beyond which it is streamed.
void check(const blt::DataFile& file, size_t max_bytes, size_t held) {
  const auto whole_reader = DocumentReader::open(file, "text", held);
  const std::vector<std::string> whole = read(*whole_reader, max_bytes);
  if (whole.empty()) return;
  // Broken off in the middle, and gone on with by another reader.
  const auto first = DocumentReader::open(file, "text", held);
  std::vector<std::string> pieces;
  for (size_t i = 0; i < whole.size() / 2; ++i) {
    try {
      const auto sequence = first->next(max_bytes);
      pieces.push_back((sequence->starts_document ? "[" : "(") + sequence->bytes +
                       (sequence->ends_document ? "]" : ")"));
    } catch (const blt::DocumentError& error) {
      pieces.push_back(error.what());
    }
  }
  blt::StateWriter state;
  first->save(state);
  const auto second = DocumentReader::open(file, "text", held);
  second->load(blt::StateReader(state));
  for (std::string& piece : read(*second, max_bytes)) pieces.push_back(std::move(piece));
  blt_fuzz::require(pieces == whole, "a loaded reader goes on where the saved one was");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t max_bytes = 1 + data[0];
  const blt::DataFile file{
      blt_fuzz::write("lines.jsonl", {reinterpret_cast<const char*>(data) + 1, size - 1}),
      blt::DocumentFormat::kJsonLines};
  for (const size_t held : {kWhole, size_t{32}}) check(file, max_bytes, held);
  return 0;
}
