// What an n-gram table is called among a module's parameters.
#pragma once

#include <string>
#include <string_view>

namespace blt {

constexpr std::string_view kTableName = "ngram_table";

// Of the table of an n-gram embedding, a module of that name: "" for the module itself.
inline std::string table_name(const std::string& embedding) {
  return (embedding.empty() ? "" : embedding + ".").append(kTableName);
}

inline bool is_table_name(std::string_view parameter) { return parameter.ends_with(kTableName); }

}  // namespace blt
