// Parquet files of which every row is a document, where libblt was configured with Arrow (third_party/parquet.cmake).
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/document_reader.h"

namespace blt {

// Throws blt::Error, which names `path` and says what to do, where this build reads no Parquet.
void require_parquet(const std::filesystem::path& path);

// The texts are those of the column `text_field`, of strings or bytes, at the top of the file's schema; no other column is read. Holds a
// page of it, and the dictionary that the page may refer to. Sequence::place.line is the row, from 1. A row without a value is a
// DocumentError; no such column, one of another type, and damage are errors of the file.
std::unique_ptr<DocumentReader> open_parquet(const std::filesystem::path& path,
                                             const std::string& text_field);

}  // namespace blt
