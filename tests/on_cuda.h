// What needs a device and libblt's kernels for it.
#pragma once

#include <gtest/gtest.h>

#include "blt/base/error.h"
#include "blt/model/device.h"

namespace blt::testing {

// Skipped where there is none.
class OnDevice : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      device_ = find_device("cuda", "this test");
    } catch (const Error& why) {
      GTEST_SKIP() << why.what();
    }
  }
  at::Device device_ = at::kCPU;
};

}  // namespace blt::testing
