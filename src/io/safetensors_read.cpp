#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ne.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/io/safetensors.h"
#include "io/json.h"
#include "io/safetensors_types.h"

namespace blt {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

struct SafetensorsFile::Mapping {
  char* data = nullptr;
  uint64_t size = 0;

  explicit Mapping(const std::filesystem::path& path) {
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status = {};
    int error = descriptor < 0 || fstat(descriptor, &status) != 0 ? errno : 0;
    if (error == 0 && S_ISDIR(status.st_mode)) error = EISDIR;
    if (error == 0 && !S_ISREG(status.st_mode)) error = ESPIPE;
    size = static_cast<uint64_t>(status.st_size);
    if (error == 0 && size > 0) {
      void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor, 0);
      if (mapped == MAP_FAILED)
        error = errno;
      else
        data = static_cast<char*>(mapped);
    }
    if (descriptor >= 0) close(descriptor);
    if (error != 0)
      throw Error(fmt::format("{}: cannot read: {}", path.string(), std::generic_category().message(error)));
  }
  ~Mapping() {
    if (data != nullptr) munmap(data, size);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
};

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kLongestHeader = 100'000'000;  // as other readers have it
constexpr size_t kMostDimensions = 64;

// Reads one header; every problem is an Error with the file and an offset.
class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, const char* data, uint64_t size)
      : path_(path), data_(data), size_(size) {}

  uint64_t data_start() const { return data_start_; }

  json read() {
    if (size_ < kLengthBytes)
      fail(size_,
           fmt::format("the file ends after {}, inside the length of its header", format_bytes(size_)));
    uint64_t length = 0;
    std::memcpy(&length, data_, kLengthBytes);
    if (length > kLongestHeader)
      fail(0, fmt::format("a header of {} bytes is longer than any is ({}): not a safetensors file, or a "
                          "damaged one",
                          length, kLongestHeader));
    if (length > size_ - kLengthBytes)
      fail(size_, fmt::format("the file ends inside its header of {} bytes: it was cut short", length));
    data_start_ = kLengthBytes + length;
    try {
      json header = parse_json({data_ + kLengthBytes, length});
      if (!header.is_object()) fail(kLengthBytes, "the header is no JSON object");
      return header;
    } catch (const JsonError& e) {
      fail(kLengthBytes + e.offset, "the header is not valid JSON: " + e.what);
    }
  }

  std::map<std::string, std::string> metadata(const json& value) const {
    std::map<std::string, std::string> result;
    if (!value.is_object()) fail(kLengthBytes, "__metadata__ is no object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail(kLengthBytes, "__metadata__: " + json_quoted(key) + " is no text");
      result.emplace(key, text.get<std::string>());
    }
    return result;
  }

  SafetensorsEntry entry(const std::string& name, const json& value) const {
    const std::string tensor = "tensor " + json_quoted(name);
    if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets"))
      fail(kLengthBytes, tensor + ": wants exactly dtype, shape and data_offsets");
    SafetensorsEntry result;
    result.name = name;
    result.dtype = dtype(tensor, value["dtype"]);
    uint64_t wanted = c10::elementSize(result.dtype);
    if (!value["shape"].is_array()) fail(kLengthBytes, tensor + ": its shape is no list");
    if (value["shape"].size() > kMostDimensions)
      fail(kLengthBytes, fmt::format("{}: its shape has {} dimensions, but LibTorch takes at most {}", tensor,
                                     value["shape"].size(), kMostDimensions));
    bool is_empty = false;
    for (const json& size : value["shape"]) {
      const std::optional<uint64_t> count = natural(size);
      if (!count) fail(kLengthBytes, fmt::format("{}: {} is no size", tensor, json_shown(size)));
      is_empty |= *count == 0;
      if (*count != 0 && (__builtin_mul_overflow(wanted, *count, &wanted) || wanted > INT64_MAX))
        fail(kLengthBytes, tensor + ": its shape is too large for any file");
      result.sizes.push_back(static_cast<int64_t>(*count));
    }
    if (is_empty) wanted = 0;

    const json& range = value["data_offsets"];
    const bool is_pair = range.is_array() && range.size() == 2 && natural(range[0]) && natural(range[1]);
    if (!is_pair) fail(kLengthBytes, tensor + ": its data_offsets are not two offsets");
    const uint64_t begin = *natural(range[0]), end = *natural(range[1]);
    if (begin > end)
      fail(kLengthBytes, fmt::format("{}: its data ends at {}, before it begins at {}", tensor, end, begin));
    const uint64_t room = size_ - data_start_;
    if (end > room)
      fail(data_start_ + std::min(begin, room),
           fmt::format("{}: its data ends at {}, but the file's data has {} bytes: it was cut short, or the "
                       "header is wrong",
                       tensor, end, room));
    if (end - begin != wanted)
      fail(data_start_ + begin,
           fmt::format("{}: has {} bytes, but {} of shape [{}] wants {}", tensor, end - begin,
                       c10::toString(result.dtype), fmt::join(result.sizes, ", "), wanted));
    result.offset = data_start_ + begin;
    result.num_bytes = wanted;
    return result;
  }

  // The entries, in the order of their bytes, must fill the file.
  void check_cover(const std::vector<SafetensorsEntry>& entries) const {
    uint64_t next = data_start_;
    for (const SafetensorsEntry& entry : entries) {
      if (entry.offset < next)
        fail(entry.offset, "tensor " + json_quoted(entry.name) + ": its data overlaps the data before it");
      if (entry.offset > next)
        fail(next, fmt::format("{} bytes before tensor {} belong to no tensor", entry.offset - next,
                               json_quoted(entry.name)));
      next = entry.offset + entry.num_bytes;
    }
    if (next != size_)
      fail(next, fmt::format("the last {} bytes of the file belong to no tensor", size_ - next));
  }

 private:
  [[noreturn]] void fail(uint64_t offset, const std::string& what) const {
    throw Error(fmt::format("{}@{}: {}", path_.string(), offset, what));
  }

  static std::optional<uint64_t> natural(const json& value) {
    if (!value.is_number_unsigned()) return std::nullopt;
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return number;
  }

  at::ScalarType dtype(const std::string& tensor, const json& value) const {
    std::string known;
    for (const auto& [name, type] : kSafetensorsTypes) {
      if (value.is_string() && value.get_ref<const std::string&>() == name) return type;
      known += (known.empty() ? "" : ", ") + std::string(name);
    }
    fail(kLengthBytes,
         fmt::format("{}: {} is no dtype that libblt reads ({})", tensor, json_shown(value), known));
  }

  const std::filesystem::path& path_;
  const char* data_;
  uint64_t size_;
  uint64_t data_start_ = 0;
};

}  // namespace

SafetensorsFile::SafetensorsFile(std::filesystem::path path)
    : path_(std::move(path)), mapping_(std::make_shared<const Mapping>(path_)) {
  HeaderReader reader(path_, mapping_->data, mapping_->size);
  const json header = reader.read();
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__")
      metadata_ = reader.metadata(value);
    else
      entries_.push_back(reader.entry(name, value));
  }
  std::stable_sort(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.num_bytes) < std::pair(b.offset, b.num_bytes);
  });
  reader.check_cover(entries_);
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  if (entry == nullptr) throw Error(path_.string() + ": has no tensor " + json_quoted(name));
  char* data = mapping_->data + entry->offset;
  const auto keep = [mapping = mapping_](void*) {};
  if (entry->dtype == at::kBool)
    return at::from_blob(data, entry->sizes, keep, at::TensorOptions().dtype(at::kByte)).ne(0);
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(entry->dtype) == 0)
    return at::from_blob(data, entry->sizes, keep, at::TensorOptions().dtype(entry->dtype));
  at::Tensor copy = at::empty(entry->sizes, at::TensorOptions().dtype(entry->dtype));
  if (entry->num_bytes > 0) std::memcpy(copy.mutable_data_ptr(), data, entry->num_bytes);
  return copy;
}

}  // namespace blt
