#include <algorithm>
#include <string>
#include <vector>

#include "base/example_config.h"
#include "blt/base/config_io.h"

namespace blt_test {

namespace {

blt::FieldDoc row(const std::string& path) {
  const auto rows = blt::describe<ExampleConfig>();
  const auto it =
      std::find_if(rows.begin(), rows.end(), [&](const auto& field) { return field.path == path; });
  if (it != rows.end()) return *it;
  ADD_FAILURE() << "no row " << path;
  return {};
}

TEST(ConfigDescribe, ListsFieldsOfSectionsListsAndEveryKind) {
  std::vector<std::string> paths;
  for (const auto& field : blt::describe<ExampleConfig>()) paths.push_back(field.path);
  EXPECT_EQ(paths, (std::vector<std::string>{"name",
                                             "steps",
                                             "rate",
                                             "tied",
                                             "color",
                                             "kv_heads",
                                             "threshold",
                                             "sizes",
                                             "tags",
                                             "out",
                                             "encoder",
                                             "encoder.dim",
                                             "encoder.heads",
                                             "decoder",
                                             "decoder.dim",
                                             "decoder.heads",
                                             "sources",
                                             "sources[].path",
                                             "sources[].weight",
                                             "schedule",
                                             "schedule(cosine).warmup_steps"}));
}

TEST(ConfigDescribe, RowsSayTypeDefaultBoundsAndMeaning) {
  EXPECT_EQ(row("steps").type, "integer");
  EXPECT_EQ(row("steps").default_value, "1000");
  EXPECT_EQ(row("steps").bounds, "at least 0");
  EXPECT_EQ(row("steps").help, "Optimizer steps.");
  EXPECT_EQ(row("color").type, "red | green | blue");
  EXPECT_EQ(row("kv_heads").type, "integer | null");
  EXPECT_EQ(row("kv_heads").default_value, "null");
  EXPECT_EQ(row("sizes").type, "list of integers");
  EXPECT_EQ(row("sizes").default_value, "[3, 4, 5]");
  EXPECT_EQ(row("sizes").bounds, "between 1 and 64");
  EXPECT_EQ(row("sources").type, "list of sections");
  EXPECT_EQ(row("sources[].weight").bounds, "above 0");
  EXPECT_EQ(row("schedule").type, "section of kind cosine | constant");
  EXPECT_EQ(row("schedule").default_value, "cosine");
  EXPECT_EQ(row("encoder").type, "section");
}

TEST(ConfigDescribe, MarkdownHasATableForEachSection) {
  const std::string page = blt::config_markdown(blt::describe<ExampleConfig>());
  for (const char* line : {"| `rate` | number | `0.0003` | above 0 | Learning rate per step. |\n",
                           "\n## `encoder`\n\nBytes to patches.\n\n| key |",
                           "\n## `sources[]`\n\nWhat is read.\n", "\n## `schedule(cosine)`\n",
                           "| `warmup_steps` | integer | `100` | at least 0 | Steps of the rise. |\n",
                           "Share of the text \\| in all.", "| `color` | red \\| green \\| blue |"})
    EXPECT_NE(page.find(line), std::string::npos) << line << "\n" << page;
}

}  // namespace

}  // namespace blt_test
