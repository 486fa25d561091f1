// Damaged and hostile files: one blt::Error that names the file, never a crash and never another exception.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "file_content.h"
#include "temporary_folder.h"

namespace blt {
namespace {

std::string file_of(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

// A tensor of `dtype`, as it stands in a header.
std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}";
}

class SafetensorsDamage : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_ / "damaged.safetensors"; }

  // What the reader says of a file of these bytes; empty: it takes the file, and every byte of its tensors.
  std::string complaint(const std::string& bytes) const {
    std::filesystem::remove(
        path());  // a file that is cut to nothing first is flushed to the disk by some systems
    write_content(path(), bytes);
    try {
      const SafetensorsFile file(path());
      for (const SafetensorsEntry& entry : file.entries()) {
        const at::Tensor tensor = file.tensor(entry.name).contiguous();
        EXPECT_EQ(tensor.nbytes(), entry.num_bytes);
        const auto* first = static_cast<const unsigned char*>(tensor.const_data_ptr());
        sum_ += std::accumulate(first, first + tensor.nbytes(), uint64_t{0});
      }
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  }

  void expect_complaint(const std::string& bytes, const std::string& text) const {
    const std::string said = complaint(bytes);
    EXPECT_TRUE(said.starts_with(path().string())) << said;
    EXPECT_NE(said.find(text), std::string::npos) << "'" << text << "' is not in: " << said;
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 0) << said;
    EXPECT_LT(said.size(), 1000u) << said;
  }

  std::string whole() const {
    write_safetensors(path(),
                      {{"weights", torch::arange(12).view({3, 4}).to(torch::kFloat)},
                       {"ids", torch::arange(5)},
                       {"flags", torch::tensor({true, false, true})},
                       {"half", torch::ones({3}, torch::kHalf)},
                       {"nothing", torch::ones({0, 4})}},
                      {{"format", "pt"}, {"made by", "a test"}});
    return content_of(path());
  }

  blt_test::TemporaryFolder folder_;
  mutable uint64_t sum_ = 0;  // so that the bytes are read
};

TEST_F(SafetensorsDamage, CutShortAtEveryByte) {
  const std::string bytes = whole();
  EXPECT_EQ(complaint(bytes), "");
  for (size_t size = 0; size < bytes.size(); ++size) {
    SCOPED_TRACE(size);
    expect_complaint(bytes.substr(0, size), "");
  }
}

TEST_F(SafetensorsDamage, BytesTooMany) {
  const std::string bytes = whole();
  for (const size_t count : {1, 8, 5000}) {
    SCOPED_TRACE(count);
    expect_complaint(bytes + std::string(count, '\0'), "the last " + std::to_string(count) + " bytes");
  }
}

TEST_F(SafetensorsDamage, RangesOfBytes) {
  const std::string four(4, '\1'), eight(8, '\1'), twelve(12, '\1');
  const auto a = [](const std::string& offsets) { return entry("a", "F32", "[1]", offsets); };
  const auto b = [](const std::string& offsets) { return entry("b", "F32", "[1]", offsets); };
  const auto file = [](const std::string& one, const std::string& two, const std::string& data) {
    return file_of("{" + one + "," + two + "}", data);
  };
  EXPECT_EQ(complaint(file(a("[4,8]"), b("[0,4]"), eight)), "");
  expect_complaint(file(a("[0,4]"), b("[0,4]"), four), "tensor \"b\": its data overlaps");
  expect_complaint(file(a("[0,4]"), b("[2,6]"), std::string(6, '\1')), "tensor \"b\": its data overlaps");
  expect_complaint(file(a("[0,4]"), b("[8,12]"), twelve), "4 bytes before tensor \"b\" belong to no tensor");
  expect_complaint(file(a("[4,8]"), b("[8,12]"), twelve), "4 bytes before tensor \"a\" belong to no tensor");
  expect_complaint(file(a("[0,4]"), b("[4,8]"), twelve), "the last 4 bytes");
  expect_complaint(file(a("[0,4]"), b("[4,8]"), four), "tensor \"b\": its data ends at 8");
  expect_complaint(file(a("[0,4]"), b("[8,4]"), eight), "ends at 4, before it begins at 8");
  expect_complaint(file(a("[0,4]"), b("[1000,1004]"), eight), "tensor \"b\": its data ends at 1004");
  expect_complaint(file(a("[0,4]"), b("[9223372036854775803,9223372036854775807]"), eight), "tensor \"b\"");
  expect_complaint(file(a("[0,4]"), b("[18446744073709551612,18446744073709551615]"), eight), "tensor \"b\"");
  for (const char* offsets : {"[-4,4]", "[0]", "[0,4,8]", "[]", "4", "null", "\"0,4\"", "[0.0,4.0]",
                              "[\"0\",\"4\"]", "[null,4]", "{\"0\":4}"}) {
    SCOPED_TRACE(offsets);
    expect_complaint(file_of("{" + a(offsets) + "}", four),
                     "tensor \"a\": its data_offsets are not two offsets");
  }
  // Without a byte a tensor may stand anywhere that is inside.
  EXPECT_EQ(complaint(file(a("[0,4]"), entry("b", "F32", "[0]", "[4,4]"), four)), "");
  EXPECT_EQ(complaint(file(a("[0,4]"), entry("b", "F32", "[0]", "[0,0]"), four)), "");
  expect_complaint(file(a("[0,4]"), entry("b", "F32", "[0]", "[5,5]"), four), "tensor \"b\"");
}

TEST_F(SafetensorsDamage, ShapesThatAreNot) {
  const std::string four(4, '\1');
  const auto file = [&](const std::string& dtype, const std::string& shape) {
    return file_of("{" + entry("a", dtype, shape, "[0,4]") + "}", four);
  };
  EXPECT_EQ(complaint(file("F32", "[]")), "");
  EXPECT_EQ(complaint(file("F32", "[1,1,1,1,1,1,1,1,1,1]")), "");
  expect_complaint(file("F32", "[2]"), "tensor \"a\": has 4 bytes, but Float of shape [2] wants 8");
  expect_complaint(file("F64", "[1]"), "wants 8");
  expect_complaint(file("BF16", "[1]"), "wants 2");
  expect_complaint(file("F32", "[0]"), "wants 0");
  expect_complaint(file("F32", "[0,1000000]"), "wants 0");
  for (const char* shape :
       {"[4611686018427387904]", "[9223372036854775807]", "[4294967296,4294967296]",
        "[2147483648,2147483648,4]", "[0,9223372036854775807,2]", "[65536,65536,65536,65536,65536]"}) {
    SCOPED_TRACE(shape);
    expect_complaint(file("F32", shape), "tensor \"a\": its shape is too large for any file");
  }
  for (const char* shape : {"[-1]", "[1.0]", "[\"1\"]", "[null]", "[[1]]", "[{}]", "[true]",
                            "[9223372036854775808]", "[18446744073709551616]"}) {
    SCOPED_TRACE(shape);
    expect_complaint(file("F32", shape), "is no size");
  }
  for (const char* shape : {"1", "null", "\"[1]\"", "{}"})
    expect_complaint(file("F32", shape), "its shape is no list");
  std::string ones = "[1";
  for (int i = 1; i < 100'000; ++i) ones += ",1";
  expect_complaint(file("F32", ones + "]"), "has 100000 dimensions");
}

TEST_F(SafetensorsDamage, DtypesThatAreNot) {
  for (const char* dtype : {"F8_E4M3", "C64", "U16", "f32", "", "F32 ", "Łódź"}) {
    SCOPED_TRACE(dtype);
    expect_complaint(file_of("{" + entry("a", dtype, "[]", "[0,4]") + "}", "1234"),
                     "is no dtype that libblt reads (F64,");
  }
  for (const char* dtype : {"32", "null", "[]", "{\"a\":[]}"}) {
    SCOPED_TRACE(dtype);
    expect_complaint(
        file_of(std::string("{\"a\":{\"dtype\":") + dtype + ",\"shape\":[],\"data_offsets\":[0,4]}}", "1234"),
        "is no dtype that libblt reads");
  }
}

TEST_F(SafetensorsDamage, HeadersThatAreNot) {
  const std::string a = entry("a", "F32", "[]", "[0,4]"), data = "1234";
  expect_complaint(file_of("", ""), "not valid JSON");
  expect_complaint(file_of("   ", ""), "not valid JSON");
  expect_complaint(file_of("{" + a, data), "not valid JSON");
  expect_complaint(file_of("{" + a + ",}", data), "not valid JSON");
  expect_complaint(file_of("{" + a + "} x", data), "not valid JSON");
  expect_complaint(file_of("{" + a + "}" + std::string(3, '\0'), data), "there is a zero byte");
  expect_complaint(file_of("{\"a\xff\":1}", ""), "not valid JSON");
  expect_complaint(file_of("{\"a\":1e999}", ""), "not valid JSON");
  expect_complaint(file_of("{'a':1}", ""), "not valid JSON");
  for (const char* other : {"[]", "null", "1", "\"a\""}) expect_complaint(file_of(other), "no JSON object");

  expect_complaint(file_of("{" + a + "," + a + "}", data), "the key \"a\" stands there twice");
  expect_complaint(file_of("{" + a + "," + entry("\\u0061", "F32", "[]", "[4,8]") + "}", data + data),
                   "the key \"a\" stands there twice");
  expect_complaint(
      file_of("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"I32\",\"shape\":[],\"data_offsets\":[0,4]}}", data),
      "the key \"dtype\" stands there twice");

  for (const char* value : {"1", "null", "[]", "{}", "{\"dtype\":\"F32\",\"shape\":[]}",
                            "{\"dtype\":\"F32\",\"shape\":[],\"offsets\":[0,4]}",
                            "{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"more\":1}"}) {
    SCOPED_TRACE(value);
    expect_complaint(file_of(std::string("{\"a\":") + value + "}", data),
                     "tensor \"a\": wants exactly dtype, shape and data_offsets");
  }
  expect_complaint(file_of("{\"__metadata__\":[]}"), "__metadata__ is no object");
  expect_complaint(file_of("{\"__metadata__\":{\"a\":1}}"), "__metadata__: \"a\" is no text");
  EXPECT_EQ(complaint(file_of("{\"__metadata__\":{}}")), "");
}

TEST_F(SafetensorsDamage, LengthsThatCannotBe) {
  std::string bytes = whole();
  for (const uint64_t length :
       {uint64_t{100'000'001}, uint64_t{1} << 40, uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{7}}) {
    std::memcpy(bytes.data(), &length, sizeof(length));
    expect_complaint(bytes, "longer than any is");
  }
  const uint64_t length = bytes.size() - 7;
  std::memcpy(bytes.data(), &length, sizeof(length));
  expect_complaint(bytes, "it was cut short");
}

// Readers that call themselves run out of stack here.
TEST_F(SafetensorsDamage, NestedDeep) {
  constexpr size_t kDepth = 1'000'000;
  const std::string open(kDepth, '['), close(kDepth, ']');
  expect_complaint(file_of(open + close), "nested too deep");
  expect_complaint(file_of(open), "nested too deep");
  std::string objects;
  for (size_t i = 0; i < kDepth; ++i) objects += "{\"a\":";
  expect_complaint(file_of(objects), "nested too deep");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    SCOPED_TRACE(key);
    std::string header = "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}";
    const size_t at = header.find(key) + std::strlen(key) + 2;
    const size_t end = header.find_first_of("\"]", at + 1) + 1;
    expect_complaint(file_of(header.replace(at, end - at, open + close), "1234"), "nested too deep");
  }
}

TEST_F(SafetensorsDamage, PathsThatAreNoFiles) {
  EXPECT_THROW(SafetensorsFile(folder_ / "none"), Error);
  EXPECT_THROW(SafetensorsFile(folder_.path()), Error);
  EXPECT_THROW(SafetensorsFile("/dev/null"), Error);
  EXPECT_THROW(SafetensorsFile(folder_ / std::string(5000, 'a')), Error);
}

// Random bytes of the header changed: the file is refused or read, and nothing else happens.
TEST_F(SafetensorsDamage, RandomBytes) {
  const std::string bytes = whole();
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::mt19937_64 random(20241113);
  const std::string likely = "0123456789[]{}\",:-.eEFBIU \\unul";
  int taken = 0, refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string damaged = bytes;
    const size_t changes = 1 + random() % 4;
    for (size_t i = 0; i < changes; ++i) {
      const size_t at = random() % 10 == 0 ? random() % 8 : 8 + random() % header;
      switch (random() % 4) {
        case 0:
          damaged[at] = static_cast<char>(random());
          break;
        case 1:
          damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
          break;
        default:
          damaged[at] = likely[random() % likely.size()];
      }
    }
    const std::string said = complaint(damaged);
    if (said.empty()) {
      ++taken;
      continue;
    }
    ++refused;
    ASSERT_TRUE(said.starts_with(path().string())) << said;
    ASSERT_EQ(std::count(said.begin(), said.end(), '\n'), 0) << said;
  }
  EXPECT_GT(taken, 100);
  EXPECT_GT(refused, 10'000);
  std::cout << taken << " taken, " << refused << " refused\n";
}

}  // namespace
}  // namespace blt
