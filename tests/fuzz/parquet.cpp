// Reads Parquet: documents, errors, and an end; what was read without an error of the file is what a save in the middle and a load give
// too. Arrow, which does most of it, comes compiled, without coverage and sanitizers: of its mistakes those are found that crash, or that
// show in what it hands to libblt.
#include "data/parquet.h"

#include <vector>

#include "blt/base/error.h"
#include "fuzz.h"

// What src/data/parquet.cpp looks for in the library that has it; here it is a part of the program.
extern "C" blt::parquet_detail::Open blt_open_parquet;

// A few bytes may say that a dictionary has 2^31 entries, and Arrow asks for its 32 GiB at once: refused here, as a machine with less would.
// With the memory given, AddressSanitizer marks all of it.
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1:max_allocation_size_mb=1024";
}

namespace {

struct Read {
  std::vector<std::string> documents;  // sequences, and errors of single rows
  bool failed = false;                 // the file cannot be read to its end
};

// At most `most`.
Read read(blt::DocumentReader& reader, size_t max_bytes, size_t most) {
  Read result;
  while (result.documents.size() < most) {
    try {
      const auto sequence = reader.next(max_bytes);
      if (!sequence) break;
      blt_fuzz::require(!sequence->bytes.empty() && sequence->bytes.size() <= max_bytes,
                        "a sequence has 1 to max_bytes bytes");
      result.documents.push_back((sequence->starts_document ? "[" : "(") + sequence->bytes +
                                 (sequence->ends_document ? "]" : ")"));
    } catch (const blt::DocumentError& error) {
      result.documents.push_back(error.what());
    } catch (const blt::Error& error) {
      blt_fuzz::require(std::string_view(error.what()).find("text.parquet") != std::string_view::npos,
                        "an error names the file");
      result.failed = true;
      break;
    }
  }
  return result;
}

std::unique_ptr<blt::DocumentReader> open(const std::filesystem::path& path) {
  return std::unique_ptr<blt::DocumentReader>(blt_open_parquet(path, "text"));
}

constexpr size_t kMost = 5000;  // a few bytes may stand for very many rows

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto path = blt_fuzz::write("text.parquet", {reinterpret_cast<const char*>(data), size});
  std::unique_ptr<blt::DocumentReader> whole_reader;
  try {
    whole_reader = open(path);
  } catch (const blt::Error& error) {
    blt_fuzz::require(std::string_view(error.what()).find("text.parquet") != std::string_view::npos,
                      "an error names the file");
    return 0;
  }
  constexpr size_t kMaxBytes = 5;
  const Read whole = read(*whole_reader, kMaxBytes, kMost);
  if (whole.failed) return 0;
  const auto first = open(path);
  std::vector<std::string> pieces = read(*first, kMaxBytes, whole.documents.size() / 2).documents;
  blt::StateWriter state;
  first->save(state);
  const auto second = open(path);
  second->load(blt::StateReader(state));
  for (std::string& piece : read(*second, kMaxBytes, whole.documents.size() - pieces.size()).documents)
    pieces.push_back(std::move(piece));
  blt_fuzz::require(pieces == whole.documents, "a loaded reader goes on where the saved one was");
  return 0;
}
