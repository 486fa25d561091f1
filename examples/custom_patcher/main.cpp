// A patcher and a loss of one's own, trained by libblt's Trainer: custom_patcher TRAINING_TEXT HELD_OUT_TEXT
#include <blt/base/error.h>
#include <blt/data/loader.h>
#include <blt/model/blt.h>
#include <blt/patching/patcher.h>
#include <blt/train/trainer.h>

#include <cstdio>

// A patch ends with a line, or with its second word. A rule is asked after each id whether the next starts a patch.
struct TwoWords {
  int words = 0;
  bool operator()(int32_t id) {
    const int32_t byte = id - blt::kByteOffset;
    words += byte == ' ';
    const bool ends = byte == '\n' || words == 2;
    if (ends) words = 0;
    return ends;
  }
};

// Cross-entropy, and a little on top where the logits drift from a normalised distribution (the "z-loss" of PaLM).
blt::LossValue z_loss(const at::Tensor& logits, const blt::Batch& batch) {
  blt::LossValue loss = blt::next_id_loss(logits, batch);
  loss.sum = loss.sum + 1e-4 * logits.logsumexp(-1).square().sum();
  return loss;
}

int main(int argc, char** argv) try {
  if (argc != 3) throw blt::Error("usage: custom_patcher TRAINING_TEXT HELD_OUT_TEXT");
  blt::DataConfig data{.sources = {{.paths = {argv[1]}}}, .validation = {{.paths = {argv[2]}}}};
  data.sequence_bytes = 512;
  data.batch_bytes = 2048;

  blt::BltConfig shape;
  shape.local_dim = shape.latent_transformer.dim = 64;
  shape.latent_transformer.layers = shape.local_decoder.layers = 2;
  shape.latent_transformer.heads = shape.local_encoder.heads = shape.local_decoder.heads = 4;
  shape.ngram.rows = 1000;
  blt::Blt model(shape);

  const std::shared_ptr<const blt::Patcher> patcher = blt::rule_patcher(TwoWords{}, /*max_patch_length=*/24);
  blt::TrainerParts parts;
  parts.model = blt::trainable(model);
  parts.train = blt::make_patch_loader(data, blt::Pass::kTraining, patcher, /*entropies=*/nullptr);
  parts.valid = [&] { return blt::make_patch_loader(data, blt::Pass::kValidation, patcher, nullptr); };
  parts.loss = z_loss;

  blt::TrainConfig config{.steps = 50, .schedule = blt::CosineSchedule{.warmup = 5}};
  config.optimizer.learning_rate = 3e-3;
  blt::Trainer trainer(config, std::move(parts));
  const double before = trainer.evaluate().value();
  trainer.run();
  const double after = trainer.evaluate().value();
  std::printf("held-out bits per byte: %.2f before, %.2f after\n", before, after);
  return after < before - 2 ? 0 : 1;
} catch (const blt::Error& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
