// What every case of an operator is tested for; see op_tests.cpp.
//
//   BLT_OP_TESTS(SegmentPool, segment_pool_case(6, 4, 3), segment_pool_case(0, 0, 8));
#pragma once

#include <gtest/gtest.h>

#include "op_case.h"

namespace blt {

class OpTest : public ::testing::TestWithParam<OpCase> {};

// GoogleTest prints a parameter when its test fails.
inline void PrintTo(const OpCase& op_case, std::ostream* out) { *out << op_case.name; }

}  // namespace blt

// At global or blt namespace scope; case names must differ within a suite.
#define BLT_OP_TESTS(Suite, ...)                                                                        \
  namespace blt {                                                                                       \
  INSTANTIATE_TEST_SUITE_P(Suite, OpTest, ::testing::Values(__VA_ARGS__),                               \
                           [](const auto& instance) { return ::blt::test_name(instance.param.name); }); \
  }                                                                                                     \
  static_assert(true)
