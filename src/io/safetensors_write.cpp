#include <algorithm>
#include <numeric>
#include <set>

#include "blt/base/files.h"
#include "blt/io/safetensors.h"
#include "io/json.h"
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

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return tensors[a].second.element_size() > tensors[b].second.element_size();
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names = {"__metadata__"};
  uint64_t end = 0;
  for (const size_t i : order) {
    const auto& [name, tensor] = tensors[i];
    TORCH_CHECK(names.insert(name).second, "write_safetensors: the name ", name, " is taken");
    const uint64_t begin = end;
    end += static_cast<uint64_t>(tensor.numel()) * tensor.element_size();
    header[name] = {{"dtype", dtype_name(name, tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  AtomicFile file(path);
  const uint64_t length = text.size();
  file.write(&length, sizeof(length));
  file.write(text);
  for (const size_t i : order) {
    const at::Tensor bytes = tensors[i].second.detach().to(at::kCPU).contiguous();
    if (bytes.numel() > 0) file.write(bytes.const_data_ptr(), bytes.nbytes());
  }
  file.commit();
}

}  // namespace blt
