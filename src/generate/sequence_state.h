// What is kept of a sequence between steps, and how the layers of the models reach it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "blt/generate/generator.h"
#include "blt/ops/cached_attention.h"
#include "blt/patching/patcher.h"

namespace blt {

using StackCaches = std::vector<ops::KeyCache>;  // one a layer

StackCaches make_caches(const TransformerConfig& config, int64_t dim, int64_t window);

// Rows that come one after the other; a row costs the same on average.
class RowBuffer {
 public:
  void append(const at::Tensor& rows);  // [n, C]
  at::Tensor rows() const { return memory_.narrow(0, 0, count_); }
  void clear() { count_ = 0; }

 private:
  at::Tensor memory_;
  int64_t count_ = 0;
};

struct SequenceState {
  std::vector<int32_t> ids;
  std::vector<int64_t> starts;
  std::vector<float> entropies;
  at::Tensor logits;

  std::optional<PatchStream> patches;
  int64_t context = 0;  // the entropy model's: the id that it starts at
  StackCaches entropy_model, encoder, latent_transformer, decoder;
  std::vector<RowBuffer> open;  // states of the bytes of the open patch, as LocalEncoder::states gives them
  LocalDecoderImpl::Memory memory;  // of the last patch that is complete

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
  bool ends_patch() const { return starts.back() == size(); }  // the last id does
  int64_t complete_patches() const { return static_cast<int64_t>(starts.size()) - 1; }
};

// For rows of whole sequences: they see each other as ever, and some are kept for what comes after.
class KeepRows final : public AttentionStore {
 public:
  void keep(int64_t first, int64_t last, StackCaches& caches) { kept_.push_back({first, last, &caches}); }
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const AttentionContext& context, double scale) override;

 private:
  struct Kept {
    int64_t first, last;  // rows of the batch
    StackCaches* caches;
  };
  std::vector<Kept> kept_;
};

// For the next row of each of several sequences: it sees what is kept of its own.
class NextRows final : public AttentionStore {
 public:
  explicit NextRows(std::vector<StackCaches*> caches) : caches_(std::move(caches)) {}
  at::Tensor attend(int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const AttentionContext& context, double scale) override;

 private:
  std::vector<StackCaches*> caches_;
};

}  // namespace blt
