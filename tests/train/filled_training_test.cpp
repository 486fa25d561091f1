// Training on batches with filler (blt/data/filled_batch.h).
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <tuple>
#include <utility>
#include <vector>

#include "blt/train/gradients.h"
#include "blt/train/loss.h"
#include "blt/train/trainer.h"
#include "train/filled_texts.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::kSizes;
using testing::quick;
using testing::RepeatBatches;
using testing::small_config;
using testing::texts;

// A filled batch's loss and gradients are those of its text.
TEST(FilledBatchTraining, LossAndGradientsAreThoseOfTheText) {
  const auto gradients_of = [](const Batch& batch) {
    torch::manual_seed(5);
    Blt model(small_config());
    model->to(at::kDouble);
    const LossValue loss = next_id_loss(model->forward(batch), batch);
    loss.sum.backward();
    Gradients gradients = take_gradients(*model);
    return std::make_tuple(loss.sum.detach(), loss.byte_nll, gradients);
  };
  for (const auto& text : texts()) {
    const auto [loss, byte_nll, gradients] = gradients_of(Batch::pack(text));
    const auto [filled_loss, filled_nll, filled] = gradients_of(fill_batch(text, kSizes));
    const auto near = [](const at::Tensor& a, const at::Tensor& b) {
      return at::allclose(a, b, 1e-10, 1e-12);
    };
    EXPECT_TRUE(near(filled_loss, loss));
    EXPECT_TRUE(near(filled_nll, byte_nll));
    ASSERT_EQ(filled.dense.size(), gradients.dense.size());
    for (size_t i = 0; i < filled.dense.size(); ++i)
      EXPECT_TRUE(near(filled.dense[i].gradient, gradients.dense[i].gradient)) << filled.dense[i].name;
    ASSERT_EQ(filled.rows.size(), gradients.rows.size());
    for (size_t i = 0; i < filled.rows.size(); ++i) {
      EXPECT_TRUE(filled.rows[i].gradient.ids.equal(gradients.rows[i].gradient.ids)) << "rows of filler";
      EXPECT_TRUE(near(filled.rows[i].gradient.values, gradients.rows[i].gradient.values));
    }
  }
}

// Bytes, patches and sequences of the log are those of the text.
TEST(FilledBatchTraining, FillerIsNotCounted) {
  const auto text_of = [](const std::vector<Batch>& batches) {
    torch::manual_seed(3);
    TrainerParts parts;
    parts.model = trainable(Blt(small_config()));
    parts.train = std::make_unique<RepeatBatches>(batches);
    Trainer trainer(quick(100), std::move(parts));
    const StepStats stats = trainer.train_step();
    return std::vector<int64_t>{stats.targets, stats.text.bytes, stats.text.patches, stats.text.sequences};
  };
  for (const auto& text : texts())
    EXPECT_EQ(text_of({fill_batch(text, kSizes)}), text_of({Batch::pack(text)}));
}

}  // namespace
}  // namespace blt
