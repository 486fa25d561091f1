#include <c10/util/accumulate.h>

#include <algorithm>
#include <set>
#include <utility>

#include "blt/base/files.h"
#include "blt/io/safetensors.h"
#include "io/json.h"
#include "io/safetensors_layout.h"
#include "io/safetensors_types.h"

namespace blt {
namespace {

std::string_view dtype_name(const std::string& tensor, at::ScalarType dtype) {
  for (const auto& [name, type] : kSafetensorsTypes)
    if (type == dtype) return name;
  TORCH_CHECK(false, "write_safetensors: ", tensor, " has dtype ", c10::toString(dtype),
              ", which libblt does not write");
}

}  // namespace

SafetensorsLayout lay_out(std::vector<SafetensorsEntry> tensors,
                          const std::map<std::string, std::string>& metadata) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names = {"__metadata__"};
  uint64_t end = 0;
  for (SafetensorsEntry& tensor : tensors) {
    TORCH_CHECK(names.insert(tensor.name).second, "write_safetensors: the name ", tensor.name, " is taken");
    tensor.offset = end;
    tensor.num_bytes =
        static_cast<uint64_t>(c10::multiply_integers(tensor.sizes)) * c10::elementSize(tensor.dtype);
    end += tensor.num_bytes;
    header[tensor.name] = {{"dtype", dtype_name(tensor.name, tensor.dtype)},
                           {"shape", tensor.sizes},
                           {"data_offsets", {tensor.offset, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  SafetensorsLayout layout;
  layout.header.assign(reinterpret_cast<const char*>(&length), sizeof(length));  // little-endian, as read
  layout.header += text;
  for (SafetensorsEntry& tensor : tensors) tensor.offset += layout.header.size();
  layout.entries = std::move(tensors);
  layout.file_bytes = layout.header.size() + end;
  return layout;
}

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string_view, at::Tensor> by_name;
  for (const auto& [name, tensor] : tensors) {
    entries.push_back({.name = name, .dtype = tensor.scalar_type(), .sizes = tensor.sizes().vec()});
    by_name[name] = tensor;
  }
  const SafetensorsLayout layout = lay_out(std::move(entries), metadata);
  AtomicFile file(path);
  file.write(layout.header);
  for (const SafetensorsEntry& entry : layout.entries) {
    const at::Tensor bytes = by_name.at(entry.name).detach().to(at::kCPU).contiguous();
    if (bytes.numel() > 0) file.write(bytes.const_data_ptr(), bytes.nbytes());
  }
  file.commit();
}

}  // namespace blt
