#include "data/cache_shard.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <exception>
#include <limits>
#include <system_error>
#include <type_traits>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "data/hash.h"

namespace blt {
namespace {

static_assert(std::endian::native == std::endian::little, "the files are little-endian");

struct FileHeader {
  char magic[12];
  uint32_t version;
};
constexpr FileHeader kShardHeader = {{'b', 'l', 't', ' ', 'e', 'n', 't', 'r', 'o', 'p', 'y', '\n'}, 1};
constexpr FileHeader kIndexHeader = {{'b', 'l', 't', ' ', 'e', 'n', 't', 'i', 'n', 'd', 'x', '\n'}, 1};

struct RecordHeader {
  EntropyKey key;
  uint32_t count;         // of the entropies that follow, float32
  uint32_t header_check;  // of key and count
  uint64_t check;         // of the entropies

  uint32_t expected_header_check() const {
    return static_cast<uint32_t>(checksum(this, offsetof(RecordHeader, header_check)));
  }
  uint64_t expected_check(const float* entropies) const {
    return checksum(entropies, count * sizeof(float), key.words[0]);
  }
  uint64_t record_size() const { return sizeof(RecordHeader) + uint64_t{count} * sizeof(float); }
};
static_assert(sizeof(RecordHeader) == 32);

struct IndexEntry {
  EntropyKey key;
  uint64_t offset;
};
static_assert(sizeof(IndexEntry) == 24);

struct IndexHeader {
  FileHeader file;
  uint64_t shard_size;  // that the index covers
  uint64_t count;
};
static_assert(sizeof(IndexHeader) == 32);

// All of `size` bytes at `offset`, by as many calls of pread or pwrite as that takes; false where they end early.
template <class Byte>
bool transfer(ssize_t (*call)(int, Byte*, size_t, off_t), int descriptor, Byte* data, size_t size,
              uint64_t offset) {
  while (size > 0) {
    const ssize_t count = call(descriptor, data, size, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    data = static_cast<std::conditional_t<std::is_const_v<Byte>, const char*, char*>>(data) + count;
    offset += static_cast<uint64_t>(count);
    size -= static_cast<size_t>(count);
  }
  return true;
}

bool read_exactly(int descriptor, void* data, size_t size, uint64_t offset) {
  return transfer<void>(::pread, descriptor, data, size, offset);
}
bool write_exactly(int descriptor, const void* data, size_t size, uint64_t offset) {
  return transfer<const void>(::pwrite, descriptor, data, size, offset);
}

uint64_t file_size(int descriptor) {
  struct stat status {};
  return ::fstat(descriptor, &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

}  // namespace

std::unique_ptr<CacheShard> CacheShard::create(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0)
    throw Error(fmt::format("{}: cannot be made: {}", path.string(), std::generic_category().message(errno)));
  std::unique_ptr<CacheShard> shard(new CacheShard(path, descriptor));
  (void)::flock(descriptor, LOCK_EX);  // is_abandoned(); where there are no locks, nobody asks in vain
  if (!write_exactly(descriptor, &kShardHeader, sizeof kShardHeader, 0))
    throw Error(
        fmt::format("{}: cannot be written: {}", path.string(), std::generic_category().message(errno)));
  shard->end_ = sizeof kShardHeader;
  return shard;
}

std::unique_ptr<CacheShard> CacheShard::open(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return nullptr;
  return std::unique_ptr<CacheShard>(new CacheShard(path, descriptor));
}

CacheShard::~CacheShard() { ::close(descriptor_); }

std::filesystem::path CacheShard::index_path() const {
  return std::filesystem::path(path_).replace_extension(".index");
}

bool CacheShard::read_header() {
  FileHeader header{};
  if (!read_exactly(descriptor_, &header, sizeof header, 0) ||
      std::memcmp(&header, &kShardHeader, sizeof header) != 0)
    return false;
  end_ = sizeof header;
  return true;
}

CacheShard::Places CacheShard::read_index() {
  const int descriptor = ::open(index_path().c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return {};
  std::string content(file_size(descriptor), '\0');
  const bool is_read = read_exactly(descriptor, content.data(), content.size(), 0);
  ::close(descriptor);
  IndexHeader header{};
  if (!is_read || content.size() < sizeof header + sizeof(uint64_t)) return {};
  std::memcpy(&header, content.data(), sizeof header);
  const size_t room = content.size() - sizeof header - sizeof(uint64_t);
  uint64_t check = 0;
  std::memcpy(&check, content.data() + content.size() - sizeof check, sizeof check);
  if (std::memcmp(&header.file, &kIndexHeader, sizeof kIndexHeader) != 0 || room % sizeof(IndexEntry) != 0 ||
      room / sizeof(IndexEntry) != header.count ||
      check != checksum(content.data(), content.size() - sizeof check) ||
      header.shard_size > file_size(descriptor_) || header.shard_size < end_)
    return {};
  Places places;
  for (uint64_t i = 0; i < header.count; ++i) {
    IndexEntry entry{};
    std::memcpy(&entry, content.data() + sizeof header + i * sizeof entry, sizeof entry);
    places.emplace_back(entry.key, entry.offset);
  }
  end_ = header.shard_size;
  return places;
}

CacheShard::Places CacheShard::read_records() {
  const uint64_t size = file_size(descriptor_);
  Places places;
  RecordHeader record{};
  while (end_ + sizeof record <= size && read_exactly(descriptor_, &record, sizeof record, end_) &&
         record.header_check == record.expected_header_check() && end_ + record.record_size() <= size) {
    places.emplace_back(record.key, end_);
    end_ += record.record_size();
  }
  return places;
}

void CacheShard::scan(const Found& found) {
  const bool is_first = end_ == 0;
  if (is_first && !read_header()) return;
  Places places;
  if (is_first) places = read_index();
  const Places beyond = read_records();
  places.insert(places.end(), beyond.begin(), beyond.end());
  for (const auto& [key, offset] : places) found(key, offset);
  if (is_first && !beyond.empty() && is_abandoned()) write_index(places);
}

// Whether nobody appends any more. The kernel gives up a writer's lock when it ends, however it does. One that is not seen, on a file
// system without locks, does no harm: an index may cover less than its file.
bool CacheShard::is_abandoned() const {
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) return false;
  ::flock(descriptor_, LOCK_UN);
  return true;
}

std::optional<std::vector<float>> CacheShard::read(uint64_t offset, const EntropyKey& key,
                                                   size_t count) const {
  RecordHeader record{};
  if (!read_exactly(descriptor_, &record, sizeof record, offset) || record.key != key ||
      record.count != count || record.header_check != record.expected_header_check())
    return std::nullopt;
  std::vector<float> entropies(count);
  if (!read_exactly(descriptor_, entropies.data(), count * sizeof(float), offset + sizeof record) ||
      record.check != record.expected_check(entropies.data()))
    return std::nullopt;
  return entropies;
}

std::optional<uint64_t> CacheShard::append(const EntropyKey& key, std::span<const float> entropies) {
  if (entropies.size() > std::numeric_limits<uint32_t>::max()) return std::nullopt;
  RecordHeader record{
      .key = key, .count = static_cast<uint32_t>(entropies.size()), .header_check = 0, .check = 0};
  record.header_check = record.expected_header_check();
  record.check = record.expected_check(entropies.data());
  // The entropies first: whoever sees a whole header sees a whole record, or one whose check says that it is none.
  const uint64_t offset = end_;
  if (!write_exactly(descriptor_, entropies.data(), entropies.size_bytes(), offset + sizeof record) ||
      !write_exactly(descriptor_, &record, sizeof record, offset)) {
    (void)!::ftruncate(descriptor_, static_cast<off_t>(offset));
    return std::nullopt;
  }
  end_ += record.record_size();
  written_.emplace_back(key, offset);
  return offset;
}

void CacheShard::seal() noexcept { write_index(written_); }

void CacheShard::write_index(const Places& places) const noexcept {
  try {
    const IndexHeader header{.file = kIndexHeader, .shard_size = end_, .count = places.size()};
    std::string content(sizeof header + places.size() * sizeof(IndexEntry), '\0');
    std::memcpy(content.data(), &header, sizeof header);
    for (size_t i = 0; i < places.size(); ++i) {
      const IndexEntry entry{.key = places[i].first, .offset = places[i].second};
      std::memcpy(content.data() + sizeof header + i * sizeof entry, &entry, sizeof entry);
    }
    const uint64_t check = checksum(content.data(), content.size());
    content.append(reinterpret_cast<const char*>(&check), sizeof check);
    write_file(index_path(), content);
  } catch (const std::exception&) {
    // The file is scanned instead: slower, not wrong.
  }
}

}  // namespace blt
