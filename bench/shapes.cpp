#include "bench/shapes.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/rand.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "blt/model/parameters.h"

namespace blt::bench {
namespace {

struct Widths {
  int64_t local, local_heads;
  std::optional<int64_t> local_ffn = {};  // none: what libblt makes of the width
  int64_t decoder_layers, latent, latent_heads;
  std::optional<int64_t> latent_ffn = {};
  int64_t latent_layers;
  int64_t window, rows;
};

BltConfig config(const Widths& w) {
  BltConfig result;
  result.local_dim = w.local;
  result.window = w.window;
  result.cross_attn_k = 2;
  result.ngram.rows = w.rows;
  result.local_encoder.layers = 1;
  result.local_decoder.layers = w.decoder_layers;
  for (TransformerConfig* part : {static_cast<TransformerConfig*>(&result.local_encoder),
                                  static_cast<TransformerConfig*>(&result.local_decoder)}) {
    part->heads = w.local_heads;
    part->ffn_dim = w.local_ffn;
  }
  result.latent_transformer.dim = w.latent;
  result.latent_transformer.layers = w.latent_layers;
  result.latent_transformer.heads = w.latent_heads;
  result.latent_transformer.ffn_dim = w.latent_ffn;
  return result;
}

}  // namespace

const std::string kText =
    "A patch is a run of bytes, and the next one starts where the next byte is hard to guess. After the "
    "first "
    "letters of a long word little is left to guess, so long words make long patches; a name, a number such "
    "as "
    "2,718.28 or a new sentence makes short ones. What is easy costs little, what is hard costs more. ";

BltConfig shape(std::string_view name) {
  if (name == "small")
    return config({.local = 256,
                   .local_heads = 4,
                   .local_ffn = 768,
                   .decoder_layers = 4,
                   .latent = 512,
                   .latent_heads = 8,
                   .latent_ffn = 1536,
                   .latent_layers = 6,
                   .window = 512,
                   .rows = 50000});
  if (name == "400m")
    return config({.local = 768,
                   .local_heads = 12,
                   .decoder_layers = 7,
                   .latent = 1280,
                   .latent_heads = 10,
                   .latent_layers = 24,
                   .window = 512,
                   .rows = 500002});
  if (name == "1b")
    return config({.local = 1024,
                   .local_heads = 16,
                   .decoder_layers = 9,
                   .latent = 2048,
                   .latent_heads = 16,
                   .latent_layers = 25,
                   .window = 512,
                   .rows = 500002});
  TORCH_CHECK(name == "tiny", "the shapes are 1b, 400m, small and tiny, not ", name);
  return config({.local = 64,
                 .local_heads = 2,
                 .local_ffn = 192,
                 .decoder_layers = 2,
                 .latent = 128,
                 .latent_heads = 4,
                 .latent_ffn = 384,
                 .latent_layers = 3,
                 .window = 128,
                 .rows = 5000});
}

Blt make_model(const BltConfig& config, at::Device device) {
  if (device.is_cpu()) return Blt(config);
  Blt model{nullptr};
  {
    const MetaParameters shapes_only;
    model = Blt(config);
  }
  for (at::Tensor& parameter : model->parameters()) {
    const at::Tensor values = at::empty(parameter.sizes(), at::TensorOptions(at::kFloat).device(device));
    if (values.dim() == 1)
      values.fill_(1);
    else
      values.normal_(0, 1 / std::sqrt(static_cast<double>(values.size(1))));
    parameter.set_data(values);
  }
  return model;
}

EntropyModelConfig entropy_shape(std::string_view name) {
  if (name == "100m" || name == "400m" || name == "1b") return {};  // the paper's
  const BltConfig model = shape(name);
  EntropyModelConfig result;
  result.dim = model.local_dim;
  result.window = model.window;
  result.layers = name == "small" ? 4 : 2;
  result.heads = model.local_encoder.heads;
  result.ffn_dim = model.local_encoder.ffn_dim;
  return result;
}

std::vector<PatchedSequence> sequences(const std::string& text, int64_t rows, int64_t bytes,
                                       double mean_patch) {
  TORCH_CHECK(!text.empty() && rows >= 1 && bytes >= 3 && mean_patch >= 1,
              "needs some text, a row, 3 bytes in it, and patches of at least a byte");
  const at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(uint64_t{0});
  const at::Tensor starts = at::rand({rows, bytes - 2}, generator, at::kFloat) < 1 / mean_patch;
  const int64_t fewest = starts.sum(1).min().item<int64_t>();
  std::vector<PatchedSequence> result;
  for (int64_t row = 0; row < rows; ++row) {
    PatchedSequence sequence;
    for (int64_t i = 0; i < bytes; ++i)
      sequence.ids.push_back(kByteOffset + static_cast<unsigned char>(text[(row * bytes + i) % text.size()]));
    sequence.ids[0] = kBos;
    sequence.starts = {0, 1};
    const bool* start = starts.const_data_ptr<bool>() + row * (bytes - 2);
    for (int64_t i = 0; i < bytes - 2 && static_cast<int64_t>(sequence.starts.size()) < fewest + 2; ++i)
      if (start[i]) sequence.starts.push_back(i + 2);
    result.push_back(std::move(sequence));
  }
  return result;
}

Batch batch(const std::string& text, int64_t rows, int64_t bytes, double mean_patch) {
  return Batch::pack(sequences(text, rows, bytes, mean_patch));
}

FilledSizes sizes_around(const std::vector<PatchedSequence>& sequences) {
  int64_t ids = 0, patches = 0;
  FilledSizes sizes;
  for (const PatchedSequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.ids.size());
    ids += length;
    patches += static_cast<int64_t>(sequence.starts.size()) - (sequence.starts.back() == length ? 1 : 0);
    sizes.sequence_ids = std::max(sizes.sequence_ids, length);
  }
  const auto rows = static_cast<int64_t>(sequences.size());
  for (int64_t filler = 1; sizes.sequences - rows < filler; filler = sizes.least_filler()) {
    sizes.sequences = rows + filler;
    sizes.patches = patches + 2 * filler;  // a BOS and a patch each
    sizes.ids = std::max(ids + 2 * filler, sizes.patches + sizes.sequence_ids - 2);
  }
  return sizes;
}

}  // namespace blt::bench
