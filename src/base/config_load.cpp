// The entry points of reading: which checks run, in which order.
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/config_read.h"
#include "base/config_tree.h"
#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"

namespace blt::config_detail {

namespace {

std::shared_ptr<const Tree> parse_settings(std::string_view text, const std::string& name) {
  const auto tree = parse_tree(text, name);
  if (tree->kind == Tree::Kind::kNull)
    throw Error(name + ": is empty; write settings as lines of key: value");
  if (tree->kind != Tree::Kind::kMap)
    throw Error(name + ":" + std::to_string(tree->line) + ": must be lines of key: value at the top");
  return tree;
}

// The tree at a dotted path.
std::shared_ptr<const Tree> find_section(std::shared_ptr<const Tree> tree, std::string_view at,
                                         const std::string& name) {
  std::string_view rest = at;
  while (!rest.empty()) {
    const std::string_view key = rest.substr(0, rest.find('.'));
    rest.remove_prefix(std::min(rest.size(), key.size() + 1));
    const Tree::Entry* entry = tree->kind == Tree::Kind::kMap ? tree->find(key) : nullptr;
    if (entry == nullptr)
      throw Error(name + ":" + std::to_string(tree->line) + ": there is no key " + std::string(at));
    tree = entry->value;
  }
  return tree;
}

}  // namespace

void load(ConfigValue section, const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  const auto tree = parse_settings(read_file(file), file.string());
  ConfigReader reader(section, file.string());
  reader.read(*tree, "", std::filesystem::absolute(file).parent_path());
  for (const std::string& text : overrides) reader.override_with(text);
  reader.validate();
  reader.throw_problems();
}

void parse(ConfigValue section, std::string_view text, const std::string& name, std::string_view at) {
  const auto tree = find_section(parse_settings(text, name), at, name);
  ConfigReader reader(section, name);
  reader.read(*tree, std::string(at), std::nullopt);
  reader.validate();
  reader.throw_problems();
}

void check(ConfigValue section, const std::string& name) {
  ConfigReader reader(section, name);
  if (reader.check_bounds()) reader.validate();
  reader.throw_problems();
}

}  // namespace blt::config_detail
