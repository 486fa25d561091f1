#include "base/config_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <utility>

#include "blt/base/error.h"

namespace blt::config_detail {

namespace {

class TreeBuilder : public YAML::EventHandler {
 public:
  std::shared_ptr<const Tree> root() const { return root_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto tree = make(mark, Tree::Kind::kNull, anchor);
    // Nothing has no place of its own: yaml-cpp gives that of what comes next, wherever it is.
    if (!open_.empty() && open_.back().value_is_next) tree->line = open_.back().tree->entries.back().line;
    add(tree, mark);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const auto tree = make(mark, Tree::Kind::kScalar, anchor);
    tree->text = value;
    tree->quoted = tag == "!" || tag == "tag:yaml.org,2002:str";  // "!": quoted, to yaml-cpp
    add(tree, mark);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto& tree = anchors_.at(anchor);
    const auto is_open = [&](const Open& open) { return open.tree == tree; };
    if (std::any_of(open_.begin(), open_.end(), is_open))
      throw YAML::ParserException(mark, "an alias stands inside the thing that it names");
    add(tree, mark);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, Tree::Kind::kList, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, Tree::Kind::kMap, anchor);
  }
  void OnSequenceEnd() override { open_.pop_back(); }
  void OnMapEnd() override { open_.pop_back(); }

 private:
  struct Open {
    std::shared_ptr<Tree> tree;
    bool value_is_next = false;  // of a map: its last entry has a key and no value yet
  };

  std::shared_ptr<Tree> make(const YAML::Mark& mark, Tree::Kind kind, YAML::anchor_t anchor) {
    const auto tree = std::make_shared<Tree>(Tree{.kind = kind, .line = mark.line + 1});
    if (anchor != YAML::NullAnchor) anchors_[anchor] = tree;
    return tree;
  }

  void open(const YAML::Mark& mark, Tree::Kind kind, YAML::anchor_t anchor) {
    const auto tree = make(mark, kind, anchor);
    add(tree, mark);
    open_.push_back({tree});
  }

  void add(const std::shared_ptr<Tree>& tree, const YAML::Mark& mark) {
    if (open_.empty()) {
      root_ = tree;
      return;
    }
    Open& parent = open_.back();
    auto& entries = parent.tree->entries;
    if (parent.tree->kind == Tree::Kind::kList) {
      entries.push_back({"", mark.line + 1, tree});
    } else if (parent.value_is_next) {
      entries.back().value = tree;
      parent.value_is_next = false;
    } else {
      if (tree->kind != Tree::Kind::kScalar) throw YAML::ParserException(mark, "a key must be text");
      entries.push_back({tree->text, mark.line + 1, nullptr});
      parent.value_is_next = true;
    }
  }

  std::shared_ptr<const Tree> root_ = std::make_shared<Tree>();
  std::vector<Open> open_;
  std::map<YAML::anchor_t, std::shared_ptr<Tree>> anchors_;
};

}  // namespace

const Tree::Entry* Tree::find(std::string_view key) const {
  const auto it = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  return it == entries.end() ? nullptr : &*it;
}

std::shared_ptr<const Tree> parse_tree(std::string_view text, const std::string& name) {
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    TreeBuilder builder, second;
    parser.HandleNextDocument(builder);
    if (parser.HandleNextDocument(second))
      throw Error(name + ":" + std::to_string(second.root()->line) +
                  ": a second YAML document begins; a config is one document");
    return builder.root();
  } catch (const YAML::Exception& e) {
    const std::string line = e.mark.is_null() ? "" : ":" + std::to_string(e.mark.line + 1);
    throw Error(name + line + ": not valid YAML: " + e.msg);
  }
}

}  // namespace blt::config_detail
