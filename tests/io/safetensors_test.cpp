// Tensors into files and back; the bytes are those of docs/formats.md.
#include "blt/io/safetensors.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "file_content.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

constexpr at::ScalarType kDtypes[] = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                      at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

// The same dtype, shape and bits: NaN is itself.
::testing::AssertionResult identical(const at::Tensor& actual, const at::Tensor& expected) {
  if (actual.scalar_type() != expected.scalar_type() || actual.sizes() != expected.sizes())
    return ::testing::AssertionFailure() << actual.toString() << actual.sizes() << " instead of "
                                         << expected.toString() << expected.sizes();
  const at::Tensor a = actual.contiguous(), b = expected.contiguous();
  if (a.nbytes() != 0 && std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) != 0)
    return ::testing::AssertionFailure() << "other bits:\n" << a << "\ninstead of\n" << b;
  return ::testing::AssertionSuccess();
}

at::Tensor sample(at::ScalarType dtype, at::IntArrayRef sizes) {
  return torch::arange(c10::multiply_integers(sizes), torch::kLong).sub(2).mul(37).to(dtype).view(sizes);
}

TEST(Safetensors, KeepsEveryDtypeAndShapeAlignedAndInPlace) {
  const TemporaryFolder folder;
  NamedTensors tensors;
  // Narrow ones first, of odd sizes: writing has to put them last.
  for (size_t i = std::size(kDtypes); i-- > 0;)
    for (const std::vector<int64_t>& sizes :
         std::vector<std::vector<int64_t>>{{}, {0}, {3}, {2, 0, 3}, {5, 1}, {3, 5, 7}})
      tensors.emplace_back(std::string(c10::toString(kDtypes[i])) + std::to_string(tensors.size()),
                           sample(kDtypes[i], sizes));
  write_safetensors(folder / "t.safetensors", tensors);
  EXPECT_EQ(folder.num_entries(), 1u);

  const SafetensorsFile file(folder / "t.safetensors");
  ASSERT_EQ(file.entries().size(), tensors.size());
  EXPECT_TRUE(file.metadata().empty());
  for (const auto& [name, tensor] : tensors) {
    SCOPED_TRACE(name);
    EXPECT_TRUE(identical(file.tensor(name), tensor));
    const SafetensorsEntry* entry = file.find(name);
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->offset % tensor.element_size(), 0u);
    EXPECT_EQ(entry->num_bytes, tensor.nbytes());
    if (tensor.scalar_type() != at::kBool && tensor.numel() > 0) {
      const at::Tensor again = file.tensor(name);
      EXPECT_EQ(again.const_data_ptr(), file.tensor(name).const_data_ptr()) << "a copy";
    }
  }
  uint64_t before = 0;
  for (const SafetensorsEntry& entry : file.entries()) {
    EXPECT_GE(entry.offset, before);
    before = entry.offset;
  }
}

TEST(Safetensors, KeepsEveryBitOfFloats) {
  const TemporaryFolder folder;
  const double inf = std::numeric_limits<double>::infinity();
  const at::Tensor values =
      torch::tensor({0.0, -0.0, 1e-310, inf, -inf, std::nan("1"), 1.0 / 3.0}, at::kDouble);
  NamedTensors tensors;
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16})
    tensors.emplace_back(c10::toString(dtype), values.to(dtype));
  write_safetensors(folder / "t.safetensors", tensors);
  const SafetensorsFile file(folder / "t.safetensors");
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(identical(file.tensor(name), tensor)) << name;
}

TEST(Safetensors, WritesTensorsOfAnyStrides) {
  const TemporaryFolder folder;
  const at::Tensor whole = torch::arange(24).view({4, 6}).to(torch::kFloat).requires_grad_();
  write_safetensors(
      folder / "t.safetensors",
      {{"transposed", whole.t()}, {"slice", whole.slice(1, 1, 6, 2)}, {"expanded", whole[0].expand({3, 6})}});
  const SafetensorsFile file(folder / "t.safetensors");
  EXPECT_TRUE(identical(file.tensor("transposed"), whole.detach().t()));
  EXPECT_TRUE(identical(file.tensor("slice"), whole.detach().slice(1, 1, 6, 2)));
  EXPECT_TRUE(identical(file.tensor("expanded"), whole.detach()[0].expand({3, 6})));
}

TEST(Safetensors, KeepsMetadataAndNamesOfAllSorts) {
  const TemporaryFolder folder;
  const std::map<std::string, std::string> metadata = {
      {"format", "pt"}, {"", "an empty key"}, {"Łódź \"quoted\"\n", "tab\t, control \x01, 🙂"}};
  const NamedTensors tensors = {
      {"", torch::ones({1})}, {"a.b/c \"d\"\\", torch::ones({2})}, {"é", torch::ones({3})}};
  write_safetensors(folder / "t.safetensors", tensors, metadata);
  const SafetensorsFile file(folder / "t.safetensors");
  EXPECT_EQ(file.metadata(), metadata);
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(identical(file.tensor(name), tensor)) << name;
  EXPECT_EQ(file.find("a"), nullptr);
  EXPECT_MESSAGE(file.tensor("a"), "t.safetensors: has no tensor \"a\"");
}

TEST(Safetensors, AFileMayHoldNothing) {
  const TemporaryFolder folder;
  write_safetensors(folder / "t.safetensors", {});
  EXPECT_TRUE(SafetensorsFile(folder / "t.safetensors").entries().empty());
}

// docs/formats.md, byte by byte.
TEST(Safetensors, WritesTheseBytes) {
  const TemporaryFolder folder;
  write_safetensors(folder / "t.safetensors",
                    {{"b", torch::tensor({1, 2, 3}, torch::kByte)}, {"a", torch::tensor({{1.0f, -2.0f}})}},
                    {{"format", "pt"}});
  std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string length = {static_cast<char>(header.size()), 0, 0, 0, 0, 0, 0, 0};
  const std::string data("\x00\x00\x80\x3f\x00\x00\x00\xc0\x01\x02\x03", 11);
  EXPECT_EQ(content_of(folder / "t.safetensors"), length + header + data);
}

// Other writers align the data anyhow, order the keys anyhow, and pad the header or not.
TEST(Safetensors, ReadsDataAtAnyAddress) {
  const TemporaryFolder folder;
  for (size_t padding = 0; padding < 8; ++padding) {
    std::string header =
        "{\"b\":{\"shape\":[2],\"data_offsets\":[1,9],\"dtype\":\"I32\"},"
        "\"a\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[0,1]}}";
    header.append(padding, padding % 2 == 0 ? ' ' : '\n');
    const std::string length = {static_cast<char>(header.size()), 0, 0, 0, 0, 0, 0, 0};
    // A bool that is neither 0 nor 1 is true.
    write_content(folder / "t.safetensors",
                  length + header + std::string("\x02\x05\0\0\0\xff\xff\xff\xff", 9));
    const SafetensorsFile file(folder / "t.safetensors");
    EXPECT_TRUE(identical(file.tensor("a"), torch::tensor(true)));
    EXPECT_TRUE(identical(file.tensor("b"), torch::tensor({5, -1}, torch::kInt)));
    EXPECT_EQ(file.entries()[0].name, "a");  // in the order of their bytes
  }
}

TEST(Safetensors, TensorsOutliveTheirFileAndAreTheProcesssOwn) {
  const TemporaryFolder folder;
  const auto path = folder / "t.safetensors";
  write_safetensors(path, {{"a", torch::arange(1000)}});
  const std::string before = content_of(path);
  at::Tensor tensor = SafetensorsFile(path).tensor("a");
  tensor.mul_(-1);
  EXPECT_EQ(content_of(path), before);
  write_safetensors(path, {{"a", torch::zeros({1000})}});  // another file of that name
  std::filesystem::remove(path);
  EXPECT_TRUE(torch::equal(tensor, torch::arange(1000).neg()));
}

TEST(Safetensors, TellsCallersWhatItDoesNotWrite) {
  const TemporaryFolder folder;
  const auto path = folder / "t.safetensors";
  write_content(path, "kept");
  const at::Tensor x = torch::ones({1});
  EXPECT_MESSAGE(write_safetensors(path, {{"a", x}, {"b", x}, {"a", x}}), "the name a is taken");
  EXPECT_MESSAGE(write_safetensors(path, {{"__metadata__", x}}), "the name __metadata__ is taken");
  EXPECT_MESSAGE(write_safetensors(path, {{"a", x.to(torch::kComplexFloat)}}), "a has dtype ComplexFloat");
  EXPECT_EQ(content_of(path), "kept");
  EXPECT_EQ(folder.num_entries(), 1u);
  EXPECT_THROW(write_safetensors(folder / "no" / "t.safetensors", {{"a", x}}), Error);
}

}  // namespace
}  // namespace blt
