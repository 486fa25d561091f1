// Where two settings of one description differ.
#include <string>
#include <vector>

#include "base/config_text.h"
#include "blt/base/config_io.h"

namespace blt::config_detail {

using Kind = ConfigType::Kind;

namespace {

void compare_values(const ConfigValue& a, const ConfigValue& b, const std::string& path,
                    std::vector<ConfigDifference>& out) {
  const ConfigType& type = *a.type;
  const auto compare_inner = [&](const ConfigType* inner, size_t i, const std::string& at) {
    compare_values({inner, type.element(a.address, i)}, {inner, type.element(b.address, i)}, at, out);
  };
  switch (type.kind) {
    case Kind::kSection: {
      const std::vector<ConfigField> of_a = type.fields(a.address), of_b = type.fields(b.address);
      for (size_t i = 0; i < of_a.size(); ++i)
        compare_values(of_a[i].value, of_b[i].value, join_path(path, of_a[i].name), out);
      return;
    }
    case Kind::kVariant:
      if (type.chosen(a.address) != type.chosen(b.address)) break;
      return compare_inner(type.inner[type.chosen(a.address)], 0, path);
    case Kind::kOptional:
    case Kind::kList:
      if (type.count(a.address) != type.count(b.address)) break;
      for (size_t i = 0; i < type.count(a.address); ++i)
        compare_inner(type.inner[0], i, type.kind == Kind::kList ? join_path(path, std::to_string(i)) : path);
      return;
    default:
      break;
  }
  std::string text_a = flow_text(a), text_b = flow_text(b);
  if (text_a != text_b) out.push_back({path, std::move(text_a), std::move(text_b)});
}

}  // namespace

std::vector<ConfigDifference> compare(ConfigValue a, ConfigValue b) {
  std::vector<ConfigDifference> differences;
  compare_values(a, b, "", differences);
  return differences;
}

}  // namespace blt::config_detail
