#include "blt/ops/packed_linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "everywhere.h"
#include "message.h"
#include "op_tests.h"
#include "packed_linear_cases.h"

BLT_OP_TESTS(PackedLinear, packed_linear_case(1, 64, 64), packed_linear_case(5, 37, 50),
             packed_linear_case(130, 300, 70), packed_linear_case(8, 128, 32), packed_linear_case(9, 129, 33),
             packed_linear_case(300, 16, 1), packed_linear_case(3, 1, 100), packed_linear_case(3, 0, 5),
             packed_linear_case(0, 4, 4), packed_linear_case(4, 4, 0), packed_linear_case(2, 1030, 20),
             packed_linear_case(40, 264, 17), packed_linear_case(70, 32, 4096));

namespace blt {
namespace {

// Rows anywhere in batches of any number, by any number of threads: the promise that patch boundaries rest on.
BLT_TEST_EVERYWHERE(PackedLinear, ARowDoesNotDependOnWhatSurroundsIt) {
  const int threads = at::get_num_threads();
  for (const at::ScalarType dtype : where.dtypes()) {
    Rng rng(11);
    const at::Tensor x = rng.normal({301, 200}).to(where.device(), dtype);
    const ops::PackedWeight weight = ops::pack_weight(rng.normal({90, 200}).to(where.device(), dtype));
    const at::Tensor all = ops::packed_linear(x, weight);
    for (const int64_t count : {1, 2, 3, 7, 8, 9, 64, 127, 129})
      for (const int64_t first : {0, 1, 5, 128, 301 - 129}) {
        const at::Tensor some = ops::packed_linear(x.slice(0, first, first + count), weight);
        EXPECT_TRUE(at::equal(some, all.slice(0, first, first + count)))
            << dtype << ": " << count << " rows from " << first;
      }
    if (!where.is_cpu()) continue;
    at::set_num_threads(1);
    EXPECT_TRUE(at::equal(ops::packed_linear(x, weight), all));
    at::set_num_threads(2);
    EXPECT_TRUE(at::equal(ops::packed_linear(x, weight), all));
    EXPECT_TRUE(at::equal(ops::packed_linear(x.slice(0, 7, 8), weight), all.slice(0, 7, 8)));
    at::set_num_threads(threads);
  }
}

// As many as CUDA has tiles of another shape for.
BLT_TEST_EVERYWHERE(PackedLinear, ARowDoesNotDependOnThousandsOfOthers) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Rng rng(13);
    const at::Tensor x = rng.normal({1030, 48}).to(where.device(), dtype);
    const ops::PackedWeight weight = ops::pack_weight(rng.normal({250, 48}).to(where.device(), dtype));
    const at::Tensor all = ops::packed_linear(x, weight);
    for (const int64_t count : {1, 5, 20})
      EXPECT_TRUE(at::equal(ops::packed_linear(x.slice(0, 1030 - count), weight), all.slice(0, 1030 - count)))
          << dtype << ": the last " << count;
  }
}

BLT_TEST_EVERYWHERE(PackedLinear, KeepsTheWeightItWasMadeFrom) {
  Rng rng(12);
  for (const int64_t in : {6, 8}) {
    const at::Tensor x = rng.normal({4, in}).to(where.device(), at::kFloat),
                     w = rng.normal({5, in}).to(where.device(), at::kFloat);
    const ops::PackedWeight weight = ops::pack_weight(w);
    const at::Tensor before = ops::packed_linear(x, weight);
    w.zero_();
    EXPECT_TRUE(at::equal(ops::packed_linear(x, weight), before)) << in;
  }
}

TEST(PackedLinear, EmulatedRefusesWhatDoesNotFit) {
  const emulation::EmulatedCuda cuda;
  const at::Tensor w = at::ones({5, 6});
  ops::PackedWeight weight = ops::pack_weight(w);
  EXPECT_MESSAGE(ops::pack_weight(at::ones({5, 6}, at::kDouble)), "float32, float16 or bfloat16, got Double");
  weight.panels = w;  // of the CPU, or anybody's
  EXPECT_MESSAGE(ops::packed_linear(at::ones({2, 6}), weight),
                 "Float [5, 6] is not how a weight of Float [5, 6] is packed");
  EXPECT_EQ(cuda.launches(), 0);
}

TEST(PackedLinear, RefusesWhatDoesNotFit) {
  const at::Tensor w = at::ones({5, 6});
  const ops::PackedWeight weight = ops::pack_weight(w);
  EXPECT_MESSAGE(ops::pack_weight(at::ones({5})), "weight must be [out, in] floating, got Float [5]");
  EXPECT_MESSAGE(ops::pack_weight(at::ones({5, 6}, at::kInt)),
                 "weight must be [out, in] floating, got Int [5, 6]");
  EXPECT_MESSAGE(ops::packed_linear(at::ones({6}), weight), "x must be [N, 6], got [6]");
  EXPECT_MESSAGE(ops::packed_linear(at::ones({2, 5}), weight), "x must be [N, 6], got [2, 5]");
  EXPECT_MESSAGE(ops::packed_linear(at::ones({2, 6}, at::kDouble), weight), "x is Double, the weight Float");
  EXPECT_MESSAGE(ops::packed_linear(at::ones({2, 6}), ops::PackedWeight()), "the weight is not packed");
  const at::Tensor x = at::ones({2, 6}).requires_grad_();
  EXPECT_MESSAGE(ops::packed_linear(x, weight), "packed_linear is for inference");
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(ops::packed_linear(x, weight), at::full({2, 5}, 6.0f)));
}

}  // namespace
}  // namespace blt
