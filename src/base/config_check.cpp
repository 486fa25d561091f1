// What must hold for settings wherever they come from: bounds, and the sections' own rules.
#include <algorithm>
#include <string>

#include "base/config_read.h"
#include "base/config_text.h"
#include "blt/base/error.h"

namespace blt::config_detail {

using Kind = ConfigType::Kind;

bool ConfigReader::within(const Rule& rule, double number, const std::string& given, const std::string& path,
                          const Origin& origin) {
  const bool low = rule.low_excluded ? number <= rule.low : number < rule.low;
  if (!low && number <= rule.high) return true;
  return fail(origin, path, "must be " + bounds_text(rule) + ", is " + given);
}

template <class Visit>  // visit(target) sees every value, a section before its fields
void ConfigReader::walk(const Target& target, const Visit& visit) {
  visit(target);
  const ConfigType& type = *target.value.type;
  void* address = target.value.address;
  switch (type.kind) {
    case Kind::kSection:
      for (const ConfigField& field : type.fields(address))
        walk({field.value, join_path(target.path, field.name), field.rule}, visit);
      break;
    case Kind::kOptional:
      if (type.count(address) == 1)
        walk({{type.inner[0], type.element(address, 0)}, target.path, target.rule}, visit);
      break;
    case Kind::kList:
      for (size_t i = 0; i < type.count(address); ++i)
        walk({{type.inner[0], type.element(address, i)},
              join_path(target.path, std::to_string(i)),
              target.rule},
             visit);
      break;
    case Kind::kVariant:
      walk({{type.inner[type.chosen(address)], type.element(address, 0)}, target.path, {}}, visit);
      break;
    default:
      break;
  }
}

bool ConfigReader::check_bounds() {
  const size_t before = problems_.size();
  walk({root_, prefix_, {}}, [&](const Target& target) {
    const Kind kind = target.value.type->kind;
    if (kind != Kind::kInteger && kind != Kind::kNumber) return;
    const double number = kind == Kind::kNumber
                              ? *static_cast<const double*>(target.value.address)
                              : static_cast<double>(*static_cast<const int64_t*>(target.value.address));
    within(target.rule, number, flow_text(target.value), target.path, {file_, 0});
  });
  return problems_.size() == before;
}

void ConfigReader::validate() {
  const std::vector<Problem> known = problems_;
  walk({root_, prefix_, {}}, [&](const Target& target) {
    if (target.value.type->validate == nullptr) return;
    Errors errors;
    target.value.type->validate(target.value.address, errors);
    for (const auto& item : errors.items()) {
      const auto& key = item.first;  // not a binding: clang 14 does not capture those
      const std::string path = join_path(target.path, key);
      // A field that could not be read is not blamed for what stands there instead.
      const bool is_known = std::any_of(known.begin(), known.end(), [&](const Problem& problem) {
        return !problem.path.empty() &&
               (is_at_or_below(path, problem.path) || (!key.empty() && is_at_or_below(problem.path, path)));
      });
      if (is_known) continue;
      std::string given = path;  // the nearest section that the text has, where the field is not in it
      while (!given.empty() && !origins_.contains(given))
        given.resize(given.find_last_of('.') == given.npos ? 0 : given.rfind('.'));
      const auto it = origins_.find(given);
      fail(it == origins_.end() ? Origin{file_, 0} : it->second, path,
           (path.empty() ? "" : ": ") + item.second);
    }
  });
}

}  // namespace blt::config_detail
