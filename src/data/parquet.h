// Parquet files of which every row is a document. Arrow reads them (third_party/parquet.cmake), in a library of its own that is loaded when the
// first one is opened.
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

namespace parquet_detail {

// What the library has under kOpen, with C's linkage: open_parquet's reader, which the caller owns.
using Open = DocumentReader*(const std::filesystem::path& path, const std::string& text_field);
constexpr const char* kLibrary = "libblt_parquet.so";  // beside libblt.so
constexpr const char* kOpen = "blt_open_parquet";

}  // namespace parquet_detail

}  // namespace blt
