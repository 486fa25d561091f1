// The memory of a training step is linear in bytes: one document of 1,024 and one of 8,192 of them.
#include <gtest/gtest.h>

#include "blt/train/gradients.h"
#include "blt/train/loss.h"
#include "memory_meter.h"
#include "model/small_model.h"

namespace blt {
namespace {

TEST(LinearMemory, ForwardAndBackwardOfABlt) {
  for (const int64_t window : {int64_t{12}, int64_t{0}}) {
    BltConfig config = small_config();
    config.window = window;
    Blt model(config);
    MemoryMeter meter;
    const auto peak = [&](int64_t bytes) {
      std::mt19937_64 rng(3);
      const Batch batch = Batch::pack({random_document(rng, bytes)});
      const int64_t most = meter.peak([&] { next_id_loss(model->forward(batch), batch).sum.backward(); });
      take_gradients(*model);
      return static_cast<double>(most);
    };
    peak(1024);  // rotary tables, and what else is made once
    const double few = peak(1024), many = peak(8192);
    EXPECT_GT(few, 0);
    EXPECT_LE(many / few, 8.5) << few << " bytes of memory for 1,024 bytes of text, " << many << " for 8,192";
  }
}

}  // namespace
}  // namespace blt
