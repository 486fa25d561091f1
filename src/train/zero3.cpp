#include "train/zero3.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <utility>

#include "blt/base/error.h"
#include "train/storage.h"

namespace blt {
namespace {

std::shared_ptr<LatentTransformerImpl> latent_transformer_of(torch::nn::Module& module) {
  for (const auto& child : module.modules(/*include_self=*/false))
    if (auto found = std::dynamic_pointer_cast<LatentTransformerImpl>(child)) return found;
  return nullptr;
}

}  // namespace

std::vector<std::shared_ptr<torch::nn::Module>> divided_layers(torch::nn::Module& module) {
  const auto latent_transformer = latent_transformer_of(module);
  return latent_transformer ? latent_transformer->layers->children()
                            : std::vector<std::shared_ptr<torch::nn::Module>>{};
}

class Zero3::Watch : public LayerWatch {
 public:
  explicit Watch(Zero3& owner) : owner_(owner) {}

  void before(size_t layer) override {
    // Whole parameters stay so until there is something to train.
    if (at::GradMode::is_enabled()) owner_.divide();
    if (!owner_.is_divided_) return;
    owner_.gather(layer);
    if (owner_.overlaps() && layer + 1 < owner_.layers_.size()) owner_.fetch(layer + 1);
  }

  void after(size_t layer, const at::Tensor& y) override {
    if (!owner_.is_divided_) return;
    owner_.release(layer);
    if (y.requires_grad())
      y.register_hook([&owner = owner_, layer](const at::Tensor&) { owner.before_backward(layer); });
  }

 private:
  Zero3& owner_;
};

Zero3::Zero3(const ParallelConfig& config, std::shared_ptr<Group> group, torch::nn::Module& module,
             std::unique_ptr<Tables> tables)
    : Zero2(config, std::move(group), module, std::move(tables), divided_layers(module)),
      latent_transformer_(latent_transformer_of(module)) {
  if (!latent_transformer_) return;
  layers_.resize(latent_transformer_->layers->size());
  for (const Buckets::Bucket& bucket : buckets().all()) {
    if (bucket.unit < 0) continue;
    Layer& layer = layers_[static_cast<size_t>(bucket.unit)];
    if (layer.bucket != nullptr)
      throw Error(fmt::format(
          "parallel.sharding: zero3: the parameters of layer {} of the latent transformer are of several "
          "types or on several devices; choose zero2",
          bucket.unit));
    layer.bucket = &bucket;
  }
  watch_ = std::make_unique<Watch>(*this);
  latent_transformer_->layers->watch = watch_.get();
}

Zero3::~Zero3() {
  if (latent_transformer_) latent_transformer_->layers->watch = nullptr;
}

void Zero3::divide() {
  if (is_divided_ || layers_.empty()) return;
  const at::NoGradGuard no_grad;
  for (Layer& layer : layers_) {
    if (layer.bucket == nullptr) continue;
    const Buckets::Bucket& bucket = *layer.bucket;
    const at::Tensor& first = parameters()[bucket.pieces[0].parameter].parameter;
    layer.whole = at::zeros({bucket.size}, first.options().requires_grad(false));
    for (const Buckets::Piece& piece : bucket.pieces) {
      const at::Tensor& parameter = parameters()[piece.parameter].parameter;
      const at::Tensor place = layer.whole.narrow(0, piece.offset, piece.numel).view(parameter.sizes());
      place.copy_(parameter);
      parameter.set_data(place);
    }
    const Part range = own_range(bucket);
    layer.own = layer.whole.slice(0, range.begin, range.end).clone();
    empty_storage(layer.whole);
    layer.is_here = false;
  }
  is_divided_ = true;
}

void Zero3::fetch(size_t layer) {
  Layer& it = layers_[layer];
  if (it.bucket == nullptr || it.is_here || it.coming) return;
  fill_storage(it.whole);
  it.coming = group().all_gather(it.whole, it.own, fmt::format("parameters of latent layer {}", layer));
}

void Zero3::gather(size_t layer) {
  fetch(layer);
  Layer& it = layers_[layer];
  if (!it.coming) return;
  std::exchange(it.coming, {})->wait();
  it.is_here = true;
}

void Zero3::release(size_t layer) {
  Layer& it = layers_[layer];
  if (it.coming) gather(layer);
  if (std::exchange(it.is_here, false)) empty_storage(it.whole);
}

void Zero3::before_backward(size_t layer) {
  gather(layer);
  if (layer + 1 < layers_.size()) release(layer + 1);
  if (overlaps() && layer > 0) fetch(layer - 1);
}

void Zero3::backward(const at::Tensor& loss, bool last) {
  if (is_divided_ && overlaps()) fetch(layers_.size() - 1);  // needed after the decoder's backward
  Zero2::backward(loss, last);
  for (size_t i = 0; i < layers_.size(); ++i) release(i);
}

void Zero3::make_whole() {
  Zero2::make_whole();
  if (!std::exchange(is_divided_, false)) return;
  for (size_t i = 0; i < layers_.size(); ++i) {
    gather(i);
    layers_[i].own = at::Tensor();
  }
}

std::vector<Gradients::Dense> Zero3::collect(const std::vector<bool>& took_part) {
  divide();  // the layers may not have been asked for anything yet
  return Zero2::collect(took_part);
}

at::Tensor Zero3::place_of(size_t parameter, const Part& part) const {
  const Buckets::Bucket& bucket = buckets().all()[buckets().bucket_of(parameter)];
  if (bucket.unit < 0 || !is_divided_) return Zero2::place_of(parameter, part);
  const int64_t offset = buckets().piece(parameter).offset - own_range(bucket).begin;
  return layers_[static_cast<size_t>(bucket.unit)].own.slice(0, offset + part.begin, offset + part.end);
}

}  // namespace blt
