#include "train/tensor_share.h"

#include <c10/util/accumulate.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "blt/base/error.h"

namespace blt {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kLongestRange = 16 << 20;  // that has a checksum

// Elements [begin, end) of a flattened tensor, which do not change any more. A device's are on their way into pinned memory.
at::Tensor copied(const at::Tensor& tensor, int64_t begin, int64_t end, bool is_constant) {
  if (begin >= end) return {};
  const at::Tensor own = tensor.detach().reshape({-1}).slice(0, begin, end);
  return own.to(own.options().device(at::kCPU), /*non_blocking=*/true, /*copy=*/!is_constant);
}

// The name of the parameter that a tensor of the optimizer's state is about.
std::string parameter_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

// A file that several processes write at once, each its own bytes.
class SharedFile {
 public:
  SharedFile(fs::path path, uint64_t size) : path_(std::move(path)) {
    descriptor_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0 || ftruncate(descriptor_, static_cast<off_t>(size)) != 0) fail(errno);
  }
  ~SharedFile() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  SharedFile(const SharedFile&) = delete;
  SharedFile& operator=(const SharedFile&) = delete;

  void write(uint64_t offset, const char* data, uint64_t num_bytes) const {
    while (num_bytes > 0) {
      const ssize_t count = pwrite(descriptor_, data, num_bytes, static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail(errno);
      data += count;
      offset += static_cast<uint64_t>(count);
      num_bytes -= static_cast<uint64_t>(count);
    }
  }
  void sync() const {
    if (fsync(descriptor_) != 0) fail(errno);
  }

 private:
  [[noreturn]] void fail(int error) const {
    throw Error(fmt::format("{}: cannot write: {}", path_.string(), std::generic_category().message(error)));
  }
  fs::path path_;
  int descriptor_ = -1;
};

// The folder that a file is in, where that is not `folder` itself; when that has gone, it stays so.
void make_folder_below(const fs::path& folder, const fs::path& file) {
  if (!file.has_parent_path()) return;
  std::error_code error;
  fs::create_directory(folder / file.parent_path(), error);
  if (error)
    throw Error(fmt::format("{}: cannot make this folder: {}", (folder / file.parent_path()).string(),
                            error.message()));
}

// Writes bytes of one tensor, and adds their ranges.
void write_ranges(const SharedFile& file, uint64_t begin, const char* data, uint64_t num_bytes, int64_t rank,
                  const std::string& tensor, std::vector<WrittenRange>& ranges) {
  for (uint64_t done = 0; done < num_bytes;) {
    const uint64_t length = std::min(kLongestRange, num_bytes - done);
    ranges.push_back({.begin = begin + done,
                      .end = begin + done + length,
                      .rank = rank,
                      .tensor = tensor,
                      .checksum = range_checksum(data + done, length)});
    file.write(begin + done, data + done, length);
    done += length;
  }
}

}  // namespace

TensorShares equal_shares(const std::string& file, const std::vector<WholeTensor>& tensors, int64_t rank,
                          int64_t ranks) {
  int64_t total = 0;
  for (const WholeTensor& item : tensors) total += static_cast<int64_t>(item.tensor.nbytes());
  // Whole blocks of the disk where files are large; of small tensors a few ranks may have all.
  const int64_t share = (total + ranks - 1) / ranks, first = share * rank, last = share * (rank + 1);
  TensorShares result;
  int64_t before = 0;
  for (const auto& [name, whole, is_constant] : tensors) {
    const at::Tensor& tensor = whole;  // clang 14 does not capture a structured binding
    const auto bytes = static_cast<int64_t>(tensor.element_size());
    const auto inside = [&, before](int64_t place) {
      return std::clamp<int64_t>((place - before + bytes - 1) / bytes, 0, tensor.numel());
    };
    const int64_t begin = before >= first ? 0 : inside(first), end = before >= last ? 0 : inside(last);
    result.push_back({.file = file,
                      .name = name,
                      .dtype = tensor.scalar_type(),
                      .sizes = tensor.sizes().vec(),
                      .begin = begin,
                      .data = copied(tensor, begin, end, is_constant)});
    before += static_cast<int64_t>(tensor.nbytes());
  }
  return result;
}

TensorShares part_shares(const std::string& file, const std::vector<PartTensor>& tensors, const Parts& parts,
                         const torch::nn::Module& module, int64_t rank, int64_t ranks) {
  std::map<std::string, std::vector<int64_t>> sizes;
  for (const auto& item : module.named_parameters()) sizes[item.key()] = item.value().sizes().vec();
  std::vector<WholeTensor> whole;
  TensorShares result;
  for (const auto& [name, parameter, tensor, is_by_row] : tensors) {
    const auto part = parts.find(parameter);
    if (part == parts.end()) {
      whole.push_back({.name = name, .tensor = tensor});
      continue;
    }
    const auto [begin, end] = part->second;
    TensorShare share{.file = file, .name = name, .dtype = tensor.scalar_type()};
    if (tensor.dim() == 0) {
      if (begin == 0 && end > 0) share.data = copied(tensor, 0, 1, /*is_constant=*/false);
    } else {
      share.sizes = sizes.at(parameter);
      share.begin = begin;
      if (is_by_row) {
        share.begin /= share.sizes.at(1);
        share.sizes.resize(1);
      }
      share.data = copied(tensor, 0, tensor.numel(), /*is_constant=*/false);
    }
    result.push_back(std::move(share));
  }
  for (TensorShare& share : equal_shares(file, whole, rank, ranks)) result.push_back(std::move(share));
  return result;
}

TensorShares model_shares(const std::string& file,
                          const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                          const std::map<std::string, at::Tensor>& own, const Parts& parts,
                          const torch::nn::Module& module, int64_t rank, int64_t ranks) {
  std::map<const c10::TensorImpl*, std::string> parameters;
  std::set<const c10::StorageImpl*> divided,
      trained;  // memory that no other tensor may name, and that changes
  for (const auto& item : module.named_parameters()) {
    parameters[item.value().unsafeGetTensorImpl()] = item.key();
    const c10::StorageImpl* storage = item.value().storage().unsafeGetStorageImpl();
    if (parts.count(item.key()) > 0) divided.insert(storage);
    if (item.value().requires_grad()) trained.insert(storage);
  }
  std::vector<PartTensor> moved;
  std::vector<WholeTensor> rest;
  for (const auto& [name, tensor] : tensors) {
    const auto parameter = parameters.find(tensor.unsafeGetTensorImpl());
    const auto found = parameter == parameters.end() ? own.end() : own.find(parameter->second);
    if (found != own.end()) {
      moved.push_back({.name = name, .parameter = found->first, .tensor = found->second});
    } else if (parameter == parameters.end() || parts.count(parameter->second) == 0) {
      const c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
      TORCH_CHECK(divided.count(storage) == 0, file, ": ", name,
                  " is a view of a parameter that the ranks divide; ModelToSave has the parameter itself");
      rest.push_back({.name = name, .tensor = tensor, .is_constant = trained.count(storage) == 0});
    }
  }
  TensorShares result = part_shares(file, moved, parts, module, rank, ranks);
  for (TensorShare& share : equal_shares(file, rest, rank, ranks)) result.push_back(std::move(share));
  return result;
}

TensorShares optimizer_shares(const std::string& file, const OptimizerState& state, const Parts& parts,
                              const torch::nn::Module& module, int64_t rank, int64_t ranks) {
  std::vector<PartTensor> tensors;
  for (const OptimizerTensor& item : state)
    tensors.push_back({.name = item.name,
                       .parameter = parameter_of(item.name),
                       .tensor = item.tensor,
                       .is_by_row = item.is_by_row});
  return part_shares(file, tensors, parts, module, rank, ranks);
}

std::string describe(const TensorShares& shares, int64_t rank) {
  json result = json::array();
  for (const TensorShare& share : shares) {
    const bool has_first = share.data.defined() && share.begin == 0;
    const bool is_empty = c10::multiply_integers(share.sizes) == 0;
    if (has_first || (is_empty && rank == 0))
      result.push_back({share.file, share.name, static_cast<int>(share.dtype), share.sizes});
  }
  return result.dump();
}

std::map<std::string, SafetensorsLayout> lay_out_files(
    const std::vector<std::string>& descriptions,
    const std::map<std::string, std::map<std::string, std::string>>& metadata) {
  std::map<std::string, std::map<std::string, SafetensorsEntry>> files;
  for (const std::string& description : descriptions)
    for (const json& item : json::parse(description)) {
      const auto name = item[1].get<std::string>();
      SafetensorsEntry entry{.name = name,
                             .dtype = static_cast<at::ScalarType>(item[2].get<int>()),
                             .sizes = item[3].get<std::vector<int64_t>>()};
      files[item[0].get<std::string>()].emplace(name, std::move(entry));
    }
  std::map<std::string, SafetensorsLayout> result;
  for (const auto& [file, metadata_of_file] : metadata) {
    std::vector<SafetensorsEntry> entries;
    for (auto& [name, entry] : files[file]) entries.push_back(std::move(entry));
    result.emplace(file, lay_out(std::move(entries), metadata_of_file));
  }
  return result;
}

WrittenRanges write_shares(const fs::path& folder, const std::map<std::string, SafetensorsLayout>& files,
                           const TensorShares& shares, int64_t rank, bool with_headers,
                           const std::function<void(const fs::path& file)>& begins) {
  WrittenRanges written;
  for (const auto& [file, layout] : files) {
    begins(folder / file);
    std::vector<WrittenRange>& ranges = written[file];
    make_folder_below(folder, file);
    const SharedFile target(folder / file, layout.file_bytes);
    if (with_headers) write_ranges(target, 0, layout.header.data(), layout.header.size(), rank, "", ranges);
    std::map<std::string_view, const SafetensorsEntry*> entries;
    for (const SafetensorsEntry& entry : layout.entries) entries[entry.name] = &entry;
    for (const TensorShare& share : shares) {
      if (share.file != file) continue;
      const auto entry = entries.find(share.name);
      if (entry == entries.end() || entry->second->dtype != share.dtype ||
          entry->second->sizes != share.sizes)
        throw Error(
            fmt::format("the ranks do not agree on the type or shape of {}: start all of them with the "
                        "same config and the same program",
                        share.name));
      if (!share.data.defined()) continue;
      const uint64_t begin =
          entry->second->offset + static_cast<uint64_t>(share.begin) * share.data.element_size();
      write_ranges(target, begin, static_cast<const char*>(share.data.const_data_ptr()), share.data.nbytes(),
                   rank, share.name, ranges);
    }
    target.sync();
  }
  return written;
}

}  // namespace blt
