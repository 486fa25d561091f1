#include "blt/generate/generator.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "blt/base/error.h"
#include "blt/ops/cross_entropy.h"
#include "generate/sequence_state.h"
#include "model/sent.h"

namespace blt {
namespace {

using State = SequenceState;

constexpr int32_t kNewline = '\n' + kByteOffset;

// No gradients, and the dispatcher does not even look for them: at one row a step, looking costs.
struct Inference {
  at::NoGradGuard no_grad;
  at::AutoDispatchBelowADInplaceOrView below;
};

at::Tensor int32_tensor(const std::vector<int32_t>& values) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kInt);
  std::copy(values.begin(), values.end(), result.data_ptr<int32_t>());
  return result;
}

at::Tensor on_device(const std::vector<int32_t>& values, at::Device device) {
  return sent(int32_tensor(values), device);
}

Segments segments_on(const std::vector<int64_t>& lengths, at::Device device) {
  Segments segments = Segments::from_lengths(lengths);
  segments.offsets = sent(segments.offsets, device);
  return segments;
}

// The device that it is on.
at::Device check_model(const torch::nn::Module& model) {
  TORCH_CHECK(!model.is_training(), "Generator: a model is in training mode (eval())");
  const std::vector<at::Tensor> parameters = model.parameters();
  const at::Tensor& first = parameters.front();
  for (const at::Tensor& parameter : parameters) {
    TORCH_CHECK(!parameter.requires_grad(), "Generator: a model is not frozen (blt::freeze)");
    TORCH_CHECK(parameter.device() == first.device() && parameter.scalar_type() == first.scalar_type(),
                "Generator: a model must be on one device in one type, is ", first.scalar_type(), " on ",
                first.device(), " and ", parameter.scalar_type(), " on ", parameter.device());
  }
  TORCH_CHECK(!first.device().is_cpu() || first.scalar_type() == at::kFloat,
              "Generator: on the CPU a model must be float32, is ", first.scalar_type());
  return first.device();
}

// Of the id that follows each row's, [N] float32 on its way to the host.
Fetched entropies_of(const at::Tensor& logits) {
  const at::Tensor none =
      at::full({logits.size(0)}, kIgnore, at::TensorOptions(at::kInt).device(logits.device()));
  return Fetched(ops::cross_entropy(logits, none).entropy);
}

// The embeddings [N, C] of each sequence's last id, from those ids that its n-grams reach back to, none before
// `first(state)`.
template <class First>
at::Tensor embed_last(NgramEmbedding& embedding, const std::vector<State*>& sequences, const First& first) {
  int64_t reach = 1;
  for (const int64_t n : embedding->hash().sizes) reach = std::max(reach, n);
  std::vector<int32_t> ids, last;
  std::vector<int64_t> lengths;
  for (const State* s : sequences) {
    const int64_t from = std::max(first(*s), s->size() - reach);
    ids.insert(ids.end(), s->ids.begin() + from, s->ids.end());
    lengths.push_back(s->size() - from);
    last.push_back(static_cast<int32_t>(ids.size()) - 1);
  }
  const at::Device device = embedding->byte_table.device();
  const at::Tensor rows = embedding(on_device(ids, device), segments_on(lengths, device));
  if (rows.size(0) == static_cast<int64_t>(sequences.size())) return rows;
  return sequences.size() == 1 ? rows.narrow(0, last[0], 1) : rows.index_select(0, on_device(last, device));
}

int64_t last_position(const State& s) { return s.size() - 1; }

// The context of one new row for each sequence, at position(state) of it.
template <class Position>
AttentionContext next_context(Layers& layers, NextRows& store, const std::vector<State*>& sequences,
                              const at::Tensor& like, const Position& position) {
  std::vector<int32_t> positions;
  for (const State* s : sequences) positions.push_back(static_cast<int32_t>(position(*s)));
  const int64_t length = 1 + *std::max_element(positions.begin(), positions.end());
  return layers->context(on_device(positions, like.device()), length, store, like);
}

NextRows next_rows(const std::vector<State*>& sequences, StackCaches State::*caches) {
  std::vector<StackCaches*> list;
  for (State* s : sequences) list.push_back(&(s->*caches));
  return NextRows(std::move(list));
}

// One tensor of several sequences' rows; itself where there is one.
template <class Rows>
at::Tensor gather(const std::vector<State*>& sequences, const Rows& rows) {
  if (sequences.size() == 1) return rows(*sequences[0]);
  std::vector<at::Tensor> list;
  for (State* s : sequences) list.push_back(rows(*s));
  return at::cat(list);
}

// What a patch of `memory` holds, with its own memory.
LocalDecoderImpl::Memory memory_of(const LocalDecoderImpl::Memory& memory, int64_t patch, int64_t k) {
  LocalDecoderImpl::Memory own;
  for (const CrossAttentionImpl::Memory& slots : memory.slots)
    own.slots.push_back({slots.k.narrow(0, patch * k, k).clone(), slots.v.narrow(0, patch * k, k).clone()});
  if (memory.added.defined()) own.added = memory.added.narrow(0, patch, 1).clone();
  return own;
}

LocalDecoderImpl::Memory gather_memory(const std::vector<State*>& sequences) {
  if (sequences.size() == 1) return sequences[0]->memory;
  LocalDecoderImpl::Memory all;
  const LocalDecoderImpl::Memory& first = sequences[0]->memory;
  for (size_t i = 0; i < first.slots.size(); ++i)
    all.slots.push_back({gather(sequences, [i](State& s) { return s.memory.slots[i].k; }),
                         gather(sequences, [i](State& s) { return s.memory.slots[i].v; })});
  if (first.added.defined()) all.added = gather(sequences, [](State& s) { return s.memory.added; });
  return all;
}

void check_ids(const std::vector<int32_t>& ids) {
  for (const int32_t id : ids)
    TORCH_CHECK(id >= 0 && id < kVocabulary, "Generator: id ", id, " is not in the vocabulary of ",
                kVocabulary);
}

// Row i of logits to sequence i, on the host.
void hand_out(const at::Tensor& logits, const std::vector<State*>& sequences) {
  const Fetched fetched(logits.to(at::kFloat));
  const at::Tensor& rows = fetched.wait();
  for (size_t i = 0; i < sequences.size(); ++i)
    sequences[i]->logits = rows.select(0, static_cast<int64_t>(i));
}

}  // namespace

std::vector<int32_t> ids_of(std::string_view bytes) {
  std::vector<int32_t> ids{kBos};
  for (const char c : bytes) ids.push_back(static_cast<uint8_t>(c) + kByteOffset);
  return ids;
}

GeneratedSequence::GeneratedSequence(std::unique_ptr<SequenceState> state) : state_(std::move(state)) {}
GeneratedSequence::GeneratedSequence(GeneratedSequence&&) noexcept = default;
GeneratedSequence& GeneratedSequence::operator=(GeneratedSequence&&) noexcept = default;
GeneratedSequence::~GeneratedSequence() = default;
const std::vector<int32_t>& GeneratedSequence::ids() const { return state_->ids; }
const std::vector<int64_t>& GeneratedSequence::starts() const { return state_->starts; }
const std::vector<float>& GeneratedSequence::entropies() const { return state_->entropies; }
const at::Tensor& GeneratedSequence::logits() const { return state_->logits; }

Generator::Generator(Blt model, EntropyModel entropy_model, std::shared_ptr<const Patcher> patcher,
                     Options options)
    : model_(std::move(model)),
      entropy_model_(std::move(entropy_model)),
      patcher_(std::move(patcher)),
      options_(options) {
  TORCH_CHECK(!model_.is_empty() && patcher_ != nullptr, "Generator: there is no model, or no patcher");
  device_ = check_model(*model_);
  static_cast<void>(patcher_->rule());  // refuses rules that look ahead
  if (!patcher_->needs_entropies())
    entropy_model_ = EntropyModel(nullptr);
  else if (entropy_model_.is_empty())
    throw Error("the patches of this model need entropies, but it has no entropy model");
  if (!entropy_model_.is_empty()) entropy_device_ = check_model(*entropy_model_);
}

Generator::Generator(EntropyModel model) : entropy_model_(std::move(model)) {
  TORCH_CHECK(!entropy_model_.is_empty(), "Generator: there is no model");
  entropy_device_ = check_model(*entropy_model_);
}

std::vector<GeneratedSequence> Generator::prefill(const std::vector<std::vector<int32_t>>& prompts) const {
  const Inference inference;
  std::vector<GeneratedSequence> result;
  std::vector<State*> sequences;
  for (const std::vector<int32_t>& prompt : prompts) {
    TORCH_CHECK(!prompt.empty() && prompt[0] == kBos, "Generator::prefill: a prompt starts with the BOS");
    check_ids(prompt);
    auto state = std::make_unique<State>();
    state->ids = prompt;
    if (!entropy_model_.is_empty()) {
      const EntropyModelConfig& config = entropy_model_->config();
      state->entropy_model = make_caches(config, config.dim, config.window);
    }
    if (!model_.is_empty()) {
      const BltConfig& config = model_->config();
      state->encoder = make_caches(config.local_encoder, config.local_dim, config.window);
      state->latent_transformer = make_caches(config.latent_transformer, config.latent_transformer.dim, 0);
      state->decoder = make_caches(config.local_decoder, config.local_dim, config.window);
      state->patches.emplace(patcher_->stream());
      state->starts = {0};
    }
    sequences.push_back(state.get());
    result.push_back(GeneratedSequence(std::move(state)));
  }
  if (sequences.empty()) return result;
  if (!entropy_model_.is_empty()) prefill_entropies(sequences);
  if (!model_.is_empty()) prefill_patches(sequences);
  return result;
}

// The entropy model over all prompts; alone, its logits are the answer.
void Generator::prefill_entropies(const std::vector<State*>& sequences) const {
  std::vector<int32_t> ids, last;
  std::vector<int64_t> contexts;
  KeepRows store;
  int64_t first = 0;  // of the sequence, in the batch
  for (State* s : sequences) {
    ids.insert(ids.end(), s->ids.begin(), s->ids.end());
    for (int64_t i = 0; i < s->size(); ++i)
      if (options_.reset_at_newline && s->ids[i] == kNewline) {
        contexts.push_back(i + 1 - s->context);
        s->context = i + 1;
      }
    if (s->context < s->size()) contexts.push_back(s->size() - s->context);
    store.keep(first + s->context, first + s->size(), s->entropy_model);
    first += s->size();
    last.push_back(static_cast<int32_t>(first) - 1);
  }
  EntropyModelImpl& model = *entropy_model_;
  const Segments documents = segments_on(contexts, entropy_device_);
  const at::Tensor h = model.embedding->forward(on_device(ids, entropy_device_), documents);
  AttentionContext context = model.layers->context(documents, h);
  context.store = &store;
  const at::Tensor logits = model.forward_in(h, context);
  if (model_.is_empty()) return hand_out(logits.index_select(0, on_device(last, entropy_device_)), sequences);
  const Fetched entropies = entropies_of(logits);
  const float* next = entropies.wait().const_data_ptr<float>();
  for (State* s : sequences) {
    s->entropies.assign(next, next + s->size());
    next += s->size();
  }
}

// Patches of all prompts, then the Byte Latent Transformer over them.
void Generator::prefill_patches(const std::vector<State*>& sequences) const {
  std::vector<PatchedSequence> list;
  for (State* s : sequences) {
    for (int64_t i = 0; i < s->size(); ++i)
      if (s->patches->push(s->ids[i], s->entropies.empty() ? 0.f : s->entropies[i]))
        s->starts.push_back(i + 1);
    list.push_back({s->ids, s->starts, {}});
  }
  const Batch batch = Batch::pack(list).to(device_);
  LocalEncoderImpl& encoder = *model_->local_encoder;
  LocalDecoderImpl& decoder = *model_->local_decoder;

  KeepRows encoder_rows, latent_rows, decoder_rows;
  std::vector<int32_t> last;
  std::vector<int64_t> last_patch;  // that is complete
  int64_t row = 0, patch = 0;
  for (State* s : sequences) {
    encoder_rows.keep(row, row + s->size(), s->encoder);
    decoder_rows.keep(row, row + s->size(), s->decoder);
    latent_rows.keep(patch, patch + s->complete_patches(), s->latent_transformer);
    row += s->size();
    last.push_back(static_cast<int32_t>(row) - 1);
    last_patch.push_back(patch + s->complete_patches() - 1);
    patch += s->complete_patches() + (s->ends_patch() ? 0 : 1);
  }
  const at::Tensor h = encoder.embedding->forward(batch.bytes, batch.documents);
  AttentionContext context = encoder.layers->context(batch.documents, h);
  context.store = &encoder_rows;
  const std::vector<at::Tensor> states = encoder.states(h, context);
  const at::Tensor patches = encoder.patches(states, batch.patches);
  context = model_->latent_transformer->layers->context(batch.latent_documents, patches);
  context.store = &latent_rows;
  const LocalDecoderImpl::Memory memory =
      decoder.memory(model_->latent_transformer->forward_in(patches, context));
  context = decoder.layers->context(batch.documents, h);
  context.store = &decoder_rows;
  const at::Tensor out = decoder.decode(states.back(), memory, batch.readers, context);
  hand_out(model_->logits(out.index_select(0, on_device(last, device_))), sequences);

  for (size_t i = 0; i < sequences.size(); ++i) {
    State& s = *sequences[i];
    s.memory = memory_of(memory, last_patch[i], model_->config().cross_attn_k);
    s.open.resize(states.size());
    for (size_t j = 0; j < states.size(); ++j)
      s.open[j].append(states[j].slice(0, last[i] + 1 - (s.size() - s.starts.back()), last[i] + 1));
  }
}

void Generator::step(const std::vector<GeneratedSequence*>& sequences,
                     const std::vector<int32_t>& ids) const {
  TORCH_CHECK(sequences.size() == ids.size(), "Generator::step: ", sequences.size(), " sequences but ",
              ids.size(), " ids");
  check_ids(ids);
  const Inference inference;
  std::vector<State*> states;
  for (GeneratedSequence* sequence : sequences) states.push_back(sequence->state_.get());
  TORCH_CHECK(std::unordered_set<State*>(states.begin(), states.end()).size() == states.size(),
              "Generator::step: a sequence is given twice");
  if (states.empty()) return;
  for (size_t i = 0; i < states.size(); ++i) states[i]->ids.push_back(ids[i]);
  if (model_.is_empty()) return hand_out(step_entropy_model(states), states);
  std::optional<Fetched> entropies;
  if (!entropy_model_.is_empty()) entropies.emplace(entropies_of(step_entropy_model(states)));
  // The encoder does not need them: a device has its row to compute while the host waits for the entropies.
  const std::vector<at::Tensor> rows = encode(states);
  decide_patches(states, entropies ? entropies->wait() : at::Tensor());
  keep_open(states, rows);
  decode(states, rows.back());
}

at::Tensor Generator::step_entropy_model(const std::vector<State*>& sequences) const {
  EntropyModelImpl& model = *entropy_model_;
  const at::Tensor h = embed_last(model.embedding, sequences, [](const State& s) { return s.context; });
  NextRows store = next_rows(sequences, &State::entropy_model);
  return model.forward_in(h, next_context(model.layers, store, sequences, h,
                                          [](const State& s) { return s.size() - 1 - s.context; }));
}

// Whether the last id of each sequence ends its patch: known before anything is said about the next id.
void Generator::decide_patches(const std::vector<State*>& sequences, const at::Tensor& entropies) const {
  for (size_t i = 0; i < sequences.size(); ++i) {
    State& s = *sequences[i];
    float entropy = 0;
    if (entropies.defined()) {
      entropy = entropies.const_data_ptr<float>()[i];
      s.entropies.push_back(entropy);
      if (options_.reset_at_newline && s.ids.back() == kNewline) {
        s.context = s.size();
        for (ops::KeyCache& cache : s.entropy_model) cache.clear();
      }
    }
    if (s.patches->push(s.ids.back(), entropy)) s.starts.push_back(s.size());
  }
}

// What the local encoder says about the last ids, as LocalEncoder::states gives it.
std::vector<at::Tensor> Generator::encode(const std::vector<State*>& sequences) const {
  LocalEncoderImpl& encoder = *model_->local_encoder;
  const at::Tensor h = embed_last(encoder.embedding, sequences, [](const State&) { return int64_t{0}; });
  NextRows store = next_rows(sequences, &State::encoder);
  return encoder.states(h, next_context(encoder.layers, store, sequences, h, last_position));
}

// Adds rows to the open patches, and ends those that are complete.
void Generator::keep_open(const std::vector<State*>& sequences, const std::vector<at::Tensor>& rows) const {
  std::vector<State*> ended;
  for (size_t i = 0; i < sequences.size(); ++i) {
    for (size_t j = 0; j < rows.size(); ++j)
      sequences[i]->open[j].append(rows[j].narrow(0, static_cast<int64_t>(i), 1));
    if (sequences[i]->ends_patch()) ended.push_back(sequences[i]);
  }
  if (!ended.empty()) end_patches(ended);
}

void Generator::decode(const std::vector<State*>& sequences, const at::Tensor& rows) const {
  LocalDecoderImpl& decoder = *model_->local_decoder;
  NextRows store = next_rows(sequences, &State::decoder);
  const at::Tensor out =
      decoder.decode(rows, gather_memory(sequences),
                     Segments::uniform(static_cast<int64_t>(sequences.size()), 1, rows.device()),
                     next_context(decoder.layers, store, sequences, rows, last_position));
  hand_out(model_->logits(out), sequences);
}

// The open patches become patches, and what bytes read from here on.
void Generator::end_patches(const std::vector<State*>& sequences) const {
  std::vector<int64_t> lengths;
  for (State* s : sequences) lengths.push_back(s->open[0].rows().size(0));
  std::vector<at::Tensor> states;
  for (size_t j = 0; j < sequences[0]->open.size(); ++j)
    states.push_back(gather(sequences, [j](State& s) { return s.open[j].rows(); }));
  const at::Tensor patches = model_->local_encoder->patches(states, segments_on(lengths, device_));
  NextRows store = next_rows(sequences, &State::latent_transformer);
  const at::Tensor latents = model_->latent_transformer->forward_in(
      patches, next_context(model_->latent_transformer->layers, store, sequences, patches,
                            [](const State& s) { return s.complete_patches() - 1; }));
  const LocalDecoderImpl::Memory memory = model_->local_decoder->memory(latents);
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->memory = memory_of(memory, static_cast<int64_t>(i), model_->config().cross_attn_k);
    for (RowBuffer& buffer : sequences[i]->open) buffer.clear();
  }
}

std::vector<int32_t> generate(const Generator& generator, const std::vector<int32_t>& prompt,
                              const GenerateOptions& options, const std::function<void(uint8_t)>& emit) {
  TORCH_CHECK(options.max_bytes > 0, "generate: max_bytes must be positive, got ", options.max_bytes);
  Sampler sampler(options.sampler);
  std::vector<GeneratedSequence> sequences = generator.prefill({prompt});
  GeneratedSequence& sequence = sequences[0];
  std::vector<int32_t> chosen;
  while (true) {
    const at::Tensor& logits = sequence.logits();
    const int32_t id = sampler({logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel())});
    chosen.push_back(id);
    if (id >= kByteOffset) emit(static_cast<uint8_t>(id - kByteOffset));
    if (static_cast<int64_t>(chosen.size()) == options.max_bytes || (id == kEos && !options.ignore_eos))
      return chosen;
    generator.step({&sequence}, {id});
  }
}

}  // namespace blt
