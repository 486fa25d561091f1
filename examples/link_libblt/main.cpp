// The smallest program with libblt: a small Byte Latent Transformer reads a line of text and learns it by heart.
#include <blt/model/blt.h>
#include <blt/patching/patcher.h>
#include <blt/patching/rules.h>
#include <blt/train/loss.h>
#include <blt/train/optimizer.h>

#include <cmath>
#include <cstdio>
#include <string>

int main() {
  blt::BltConfig config;  // the defaults are a model for GPUs
  config.local_dim = config.latent_transformer.dim = 64;
  config.latent_transformer.layers = 2;
  config.latent_transformer.heads = config.local_encoder.heads = config.local_decoder.heads = 4;
  config.local_decoder.layers = 2;
  config.ngram.rows = 1000;
  blt::Blt model(config);

  blt::PatchedSequence line{.ids = {blt::kBos}, .starts = {}, .targets = {}};
  for (const unsigned char byte : std::string("Bytes are all you need; patches make them cheap."))
    line.ids.push_back(byte + blt::kByteOffset);
  line.starts = blt::rule_patcher(blt::SpaceRule{})->starts(line.ids);  // a patch is about a word
  const blt::Batch batch = blt::Batch::pack({line});

  blt::Optimizer optimizer({.learning_rate = 3e-3});
  double first = 0, bits_per_byte = 0;
  for (int step = 0; step < 40; ++step) {
    const blt::LossValue loss = blt::next_id_loss(model->forward(batch), batch);
    (loss.sum / batch.num_targets).backward();
    const blt::Gradients gradients = blt::take_gradients(*model);
    optimizer.step(gradients, blt::clip(gradients, /*max_norm=*/1.0), /*factor=*/1.0);
    bits_per_byte = loss.byte_nll.item<double>() / (batch.num_byte_targets * std::log(2.0));
    if (step == 0) first = bits_per_byte;
  }
  std::printf("bits per byte: %.2f at first, %.2f in the end\n", first, bits_per_byte);
  return bits_per_byte < first / 4 ? 0 : 1;
}
