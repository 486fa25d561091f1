// The whole model against the references: every recorded stage, patch and gradient (golden/README.md says what
// the keys mean, and which of the two references is compared where they differ). On the CPU; with the CUDA code of the operators, on the host
// (tests/cuda_emulation); and on a CUDA device, where there is one.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/model_dir.h"
#include "blt/model/blt.h"
#include "blt/model/device.h"
#include "blt/model/entropy_model.h"
#include "blt/patching/patcher.h"
#include "cuda_emulation/kernels.h"
#include "model/compare.h"
#include "model/stages.h"

namespace blt {
namespace {

// One configuration: a Hugging Face directory, and what the references computed with it. The models are on `device`.
struct Golden {
  Golden(const std::string& config, at::Device device, at::ScalarType dtype, bool emulated) {
    const std::string folder = std::string(BLT_GOLDEN_DIR) + "/" + config;
    const LoadedModel directory = load_model(folder);
    hf = directory.blt;
    BltConfig accumulating = hf->config();
    accumulating.local_encoder.patch_queries = PatchQueries::kAccumulate;
    official = Blt(accumulating);
    const torch::NoGradGuard no_grad;
    for (auto& parameter : official->named_parameters())
      parameter.value().copy_(hf->named_parameters()[parameter.key()]);
    hf->to(device, dtype);
    official->to(device, dtype);
    entropy_model = directory.entropy_model;
    entropy_model->to(device);
    std::optional<emulation::EmulatedCuda> packing;  // each kernel reads weights as it packs them itself
    if (emulated) packing.emplace();
    freeze(*entropy_model);
    entropy_model->eval();
    patcher = make_patcher(directory.config.patching);
    cases = read_tensors(folder + "/cases.safetensors");
  }

  bool has(const std::string& key) const { return cases.count(key) != 0; }

  Blt hf{nullptr}, official{nullptr};  // as transformers computes, and as the official implementation does
  EntropyModel entropy_model{nullptr};
  std::unique_ptr<Patcher> patcher;
  std::map<std::string, at::Tensor> cases;
};

const Golden& golden(const std::string& config, at::Device device = torch::kCPU,
                     at::ScalarType dtype = torch::kFloat, bool emulated = false) {
  static std::map<std::tuple<std::string, bool, at::ScalarType, bool>, std::unique_ptr<Golden>> loaded;
  std::unique_ptr<Golden>& entry = loaded[{config, device.is_cpu(), dtype, emulated}];
  if (!entry) entry = std::make_unique<Golden>(config, device, dtype, emulated);
  return *entry;
}

enum class Place { kCpu, kEmulated, kCuda };

struct Case {
  std::string config, name;
  Place place;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.config << " " << c.name; }  // GoogleTest's

// The ids, entropies and patches of one case.
class GoldenModel : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { set_up(torch::kFloat); }

  void set_up(at::ScalarType dtype) {
    if (GetParam().place == Place::kCuda) {
      try {
        device_ = find_device("cuda", "this test");
      } catch (const Error& why) {
        GTEST_SKIP() << why.what();
      }
    }
    // Patches are those of the CPU's entropies everywhere: what follows is compared with what the references made of the same ones.
    const Golden& on_cpu = golden(GetParam().config);
    ids_ = on_cpu.cases.at(GetParam().name + ".input_ids");
    for (int64_t row = 0; row < ids_.size(0); ++row) {
      PatchedSequence sequence;
      const at::Tensor ids = ids_[row].to(torch::kInt).contiguous();
      sequence.ids.assign(ids.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>() + ids.numel());
      rows_.push_back(std::move(sequence));
    }
    const at::Tensor entropies = entropies_of(on_cpu, torch::kCPU);
    const auto size = static_cast<size_t>(ids_.size(1));
    for (size_t row = 0; row < rows_.size(); ++row)
      rows_[row].starts =
          on_cpu.patcher->starts(rows_[row].ids, {entropies.const_data_ptr<float>() + row * size, size});
    const bool emulated = GetParam().place == Place::kEmulated;
    golden_ = &golden(GetParam().config, device_, dtype, emulated);
    if (emulated) emulated_.emplace();
  }

  void TearDown() override {
    if (emulated_ && !IsSkipped()) {
      EXPECT_GT(emulated_->launches(), 0);
    }
  }

  // [B * S]
  at::Tensor entropies_of(const Golden& models, at::Device device) const {
    const Batch batch = Batch::pack_bytes(rows_).to(device);
    EntropyModel entropy_model = models.entropy_model;  // a reference to it: calls are not const
    return entropy_model->scores(batch.bytes, batch.targets, batch.documents).entropy;
  }

  Batch batch_of(const std::vector<PatchedSequence>& rows) const { return Batch::pack(rows).to(device_); }

  // Sums in other orders, and cosines and exponentials that differ in their last bit.
  bool is_cpu() const { return GetParam().place == Place::kCpu; }
  testing::AssertionResult same(const std::string& name, const at::Tensor& actual,
                                const at::Tensor& expected) const {
    return same_values(name, actual, expected, is_cpu() ? 2e-5 : 1e-4);
  }

  const at::Tensor& recorded(const std::string& key) const {
    return golden_->cases.at(GetParam().name + "." + key);
  }
  bool has(const std::string& key) const { return golden_->has(GetParam().name + "." + key); }
  int64_t size() const { return ids_.size(1); }
  // HF reads one patch too early at the last id of this case (REFERENCE section 12.3); everything that does not
  // come after the decoder's first cross-attention agrees there too.
  bool last_id_differs() const { return GetParam().name == "maxlast"; }

  // Patches of a row that are no padding.
  int64_t num_patches(size_t row) const { return recorded("hf.patch_ids")[row].max().item<int64_t>() + 1; }

  // The recorded rows [first, last) of a stage, laid end to end, and what was computed, to be compared. Rows that
  // are known to differ are left out of both.
  void expect_stage(const std::string& source, const std::string& stage, const at::Tensor& actual,
                    size_t first, size_t last) const {
    if (!has(source + "." + stage)) return;
    const at::Tensor& all = recorded(source + "." + stage);
    const bool per_patch = stage.starts_with("enc_cross") || stage == "global_out";
    const int64_t slots = stage.starts_with("enc_cross") ? golden_->hf->config().cross_attn_k : 1;
    int64_t offset = 0;
    for (size_t row = first; row < last; ++row) {
      const int64_t rows = per_patch ? num_patches(row) * slots : size();
      const int64_t kept = source == "hf" && last_id_differs() && stage.starts_with("dec") ? rows - 1
                           : source == "hf" && last_id_differs() && stage == "logits"      ? rows - 1
                                                                                           : rows;
      const std::string name = GetParam().config + " " + GetParam().name + "." + source + "." + stage +
                               " row " + std::to_string(row);
      EXPECT_TRUE(same(name, actual.slice(0, offset, offset + kept), all[row].slice(0, 0, kept)));
      offset += rows;
    }
    ASSERT_EQ(offset, actual.size(0)) << stage;
  }

  void expect_stages(const std::string& source, const std::map<std::string, at::Tensor>& stages, size_t first,
                     size_t last) const {
    for (const auto& [stage, actual] : stages)
      if (stage != "loss") expect_stage(source, stage, actual, first, last);
  }

  at::Device device_ = torch::kCPU;
  const Golden* golden_ = nullptr;
  std::optional<emulation::EmulatedCuda> emulated_;
  at::Tensor ids_;                     // [B, S]
  std::vector<PatchedSequence> rows_;  // B
};

// The official implementation masks documents in `docs`.
class GoldenModelOfficial : public GoldenModel {};
// Recorded for these alone.
class GoldenModelGradients : public GoldenModel {};

TEST_P(GoldenModel, Entropies) {
  const at::Tensor entropies = entropies_of(*golden_, device_).view(ids_.sizes());
  EXPECT_TRUE(same("entropies", entropies, recorded("entropies")));
  if (GetParam().name == "docs") return;  // the official ones see no further back than an EOS
  EXPECT_TRUE(same("official.entropies", entropies, recorded("official.entropies")));
}

TEST_P(GoldenModel, Patches) {
  if (GetParam().place != Place::kCpu) GTEST_SKIP() << "patches are made of the CPU's entropies everywhere";
  const Batch batch = batch_of(rows_);
  const at::Tensor patch_ids = batch.patches.ids().to(torch::kLong).view(ids_.sizes()).cpu();
  const at::Tensor reader_ids = batch.readers.ids().to(torch::kLong).view(ids_.sizes()).cpu();
  int64_t before = 0;
  for (size_t row = 0; row < rows_.size(); ++row) {
    EXPECT_TRUE(within("patch_ids row " + std::to_string(row), patch_ids[row] - before,
                       recorded("hf.patch_ids")[row], 0));
    const int64_t same = size() - (last_id_differs() ? 1 : 0);
    EXPECT_TRUE(within("decoder_patch_ids row " + std::to_string(row),
                       (reader_ids[row] - before).slice(0, 0, same),
                       recorded("hf.decoder_patch_ids")[row].slice(0, 0, same), 0));
    before += num_patches(row);
    if (GetParam().name == "docs") continue;
    // The official lengths include the id that comes next, and zeros after a row's last patch.
    std::vector<int64_t> lengths;
    const std::vector<int64_t>& starts = rows_[row].starts;
    for (size_t p = 0; p < starts.size(); ++p)
      lengths.push_back((p + 1 < starts.size() ? starts[p + 1] : size() + 1) - starts[p]);
    ASSERT_LE(lengths.size(), static_cast<size_t>(recorded("official.patch_lengths").size(1)));
    lengths.resize(recorded("official.patch_lengths").size(1), 0);
    EXPECT_TRUE(within("official.patch_lengths row " + std::to_string(row), torch::tensor(lengths),
                       recorded("official.patch_lengths")[row], 0));
  }
}

TEST_P(GoldenModel, StagesOfAllRowsInOneBatch) {
  const torch::NoGradGuard no_grad;
  const Batch batch = batch_of(rows_);
  Blt model = golden_->hf;
  const auto stages = stages_of(*model, batch);
  // Every recorded stage is compared: there is none that stages_of() does not know.
  const std::string prefix = GetParam().name + ".hf.";
  for (const auto& [key, tensor] : golden_->cases) {
    if (!key.starts_with(prefix) || key.starts_with(prefix + "grad.") || key.find("patch_") != key.npos)
      continue;
    EXPECT_TRUE(stages.count(key.substr(prefix.size()))) << key << " is not compared";
  }
  expect_stages("hf", stages, 0, rows_.size());
  EXPECT_TRUE(same("hf.loss", stages.at("loss").view({1}), recorded("hf.loss")));
  // The stages are those of forward.
  if (device_.is_cpu()) {
    EXPECT_TRUE(torch::equal(model->forward(batch), stages.at("logits")));
  } else {
    EXPECT_TRUE(same("forward", model->forward(batch), stages.at("logits").cpu()));
  }
}

TEST_P(GoldenModel, StagesOfEachRowAlone) {
  const torch::NoGradGuard no_grad;
  Blt model = golden_->hf;
  for (size_t row = 0; row < rows_.size(); ++row)
    expect_stages("hf", stages_of(*model, batch_of({rows_[row]})), row, row + 1);
}

TEST_P(GoldenModelOfficial, StagesOfAllRowsInOneBatch) {
  const torch::NoGradGuard no_grad;
  const Batch batch = batch_of(rows_);
  Blt model = golden_->official;
  const auto stages = stages_of(*model, batch);
  expect_stages("official", stages, 0, rows_.size());
  EXPECT_TRUE(same("official.loss", stages.at("loss").view({1}), recorded("official.loss")));
}

// Names of parameters, in ours.
std::string renamed(std::string name, const std::vector<std::pair<std::string, std::string>>& rules) {
  for (const auto& [from, to] : rules)
    if (const size_t at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
  return name;
}
std::string from_hf(const std::string& name) {
  return renamed(name, {{"model.local_encoder.embed_tokens.weight", "local_encoder.embedding.byte_table"},
                        {"model.encoder_hash_tok_embedding.weight", "local_encoder.embedding.ngram_table"},
                        {"model.global_transformer", "latent_transformer"},
                        {"model.", ""},
                        {".rows0_vocab", ""}});
}
std::string from_official(const std::string& name) {
  return renamed(name, {{"encoder_hash_tok_embedding.0.weight", "local_encoder.embedding.ngram_table"},
                        {"global_transformer", "latent_transformer"},
                        {"attention.wq", "self_attn.q_proj"},
                        {".wq", ".q_proj"},
                        {"local_decoder.output", "lm_head"}});
}

// Gradients of the mean loss of a batch, under our names; of the n-gram table as a dense tensor.
std::map<std::string, at::Tensor> gradients_of(Blt model, const Batch& batch) {
  model->zero_grad();
  NgramEmbeddingImpl& embedding = *model->local_encoder->embedding;
  embedding.row_gradients.clear();
  (ops::cross_entropy(model->forward(batch), batch.targets).nll.sum() / batch.num_targets).backward();
  std::map<std::string, at::Tensor> gradients;
  for (const auto& parameter : model->named_parameters())
    gradients[parameter.key()] = parameter.value().grad();
  at::Tensor table = torch::zeros_like(embedding.ngram_table);
  for (const RowGradient& rows : embedding.row_gradients) {
    const auto count = rows.count.item<int64_t>();
    table.index_add_(0, rows.ids.slice(0, 0, count).to(torch::kLong), rows.values.slice(0, 0, count));
  }
  gradients["local_encoder.embedding.ngram_table"] = table;
  embedding.row_gradients.clear();
  return gradients;
}

TEST_P(GoldenModelGradients, AreThoseOfTheReferences) {
  const Batch batch = batch_of(rows_);
  int compared = 0;
  const auto expect = [&](const std::string& source, const Blt& model, auto to_ours) {
    const auto gradients = gradients_of(model, batch);
    const std::string prefix = GetParam().name + "." + source + ".grad.";
    for (const auto& [key, expected] : golden_->cases) {
      if (!key.starts_with(prefix)) continue;
      const std::string ours = to_ours(key.substr(prefix.size()));
      ASSERT_TRUE(gradients.count(ours) && gradients.at(ours).defined())
          << key << " is no gradient of ours: " << ours;
      at::Tensor actual = gradients.at(ours);
      if (ours.ends_with("ngram_table"))
        actual = actual.slice(0, 0, expected.size(0));  // the first table's rows, or all
      EXPECT_TRUE(same_gradient(key, actual, expected, is_cpu() ? 1e-4 : 5e-4));
      ++compared;
    }
  };
  expect("hf", golden_->hf, from_hf);
  expect("official", golden_->official, from_official);
  EXPECT_GT(compared, 0);
}

// How far transformers' own logits in bfloat16 are from its float32 ones (golden/make_bfloat16.py).
nlohmann::json bfloat16_errors() {
  return nlohmann::json::parse(std::ifstream(std::string(BLT_GOLDEN_DIR) + "/bfloat16.json"));
}

class GoldenModelBfloat16 : public GoldenModel {
 protected:
  void SetUp() override { set_up(torch::kBFloat16); }
};

TEST_P(GoldenModelBfloat16, LogitsAreAsNearAsThoseOfTheReference) {
  const torch::NoGradGuard no_grad;
  Blt model = golden_->hf;
  const at::Tensor logits = model->forward(batch_of(rows_));
  ASSERT_EQ(logits.scalar_type(), torch::kBFloat16);
  const at::Tensor expected = recorded("hf.logits").flatten(0, 1).to(torch::kDouble);
  const at::Tensor error = (logits.cpu().to(torch::kDouble) - expected).abs();
  const auto allowed = bfloat16_errors().at(GetParam().config).at(GetParam().name);
  constexpr double kOtherRounding = 1.5;  // which values are rounded, and when, differs
  EXPECT_LE(error.max().item<double>(), kOtherRounding * allowed.at("largest").get<double>());
  EXPECT_LE(error.square().mean().sqrt().item<double>(), kOtherRounding * allowed.at("rms").get<double>());
  EXPECT_GT(error.max().item<double>(), 1e-3);  // it is bfloat16
}

// In all four configurations, and in the one that has it; everywhere, but for the slow emulation, which gets the first name.
std::vector<Case> cases(const std::vector<std::string>& names) {
  std::vector<Case> list;
  for (const Place place : {Place::kCpu, Place::kEmulated, Place::kCuda})
    for (const char* config : {"a_base", "b_proj_gqa", "c_maxpatch_k4", "d_enc2_all"})
      for (const std::string& name : names)
        if ((name != "maxlast" || std::string(config) == "c_maxpatch_k4") &&
            (place != Place::kEmulated || name == names.front()))
          list.push_back({config, name, place});
  return list;
}
std::string name_of(const testing::TestParamInfo<Case>& chosen) {
  const Place place = chosen.param.place;
  return chosen.param.config + "_" + chosen.param.name +
         (place == Place::kCpu    ? ""
          : place == Place::kCuda ? "_Cuda"
                                  : "_EmulatedCuda");
}
INSTANTIATE_TEST_SUITE_P(All, GoldenModel, testing::ValuesIn(cases({"english", "utf8", "docs", "maxlast"})),
                         name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenModelOfficial, testing::ValuesIn(cases({"english", "utf8", "maxlast"})),
                         name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenModelGradients, testing::ValuesIn(cases({"english", "utf8"})), name_of);
INSTANTIATE_TEST_SUITE_P(All, GoldenModelBfloat16, testing::ValuesIn(cases({"english", "utf8", "docs"})),
                         name_of);

}  // namespace
}  // namespace blt
