#include "blt/train/optimizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "blt/model/linear.h"
#include "blt/train/loss.h"
#include "message.h"
#include "temporary_folder.h"
#include "train/small_model.h"

namespace blt {
namespace {

using testing::sequence;
using testing::small_config;

OptimizerConfig config_with(double learning_rate, double weight_decay = 0.1,
                            std::vector<ParameterGroup> groups = {}) {
  OptimizerConfig config;
  config.learning_rate = learning_rate;
  config.weight_decay = weight_decay;
  config.groups = std::move(groups);
  return config;
}

void copy_parameters(const torch::nn::Module& from, torch::nn::Module& to) {
  const torch::NoGradGuard no_grad;
  auto target = to.named_parameters();
  for (const auto& item : from.named_parameters()) target[item.key()].copy_(item.value());
}

// AdamW as its paper writes it, on dense gradients, in double.
struct DenseAdamW {
  OptimizerConfig config;
  std::map<std::string, torch::Tensor> m = {}, v = {};
  int64_t step = 0;

  void update(const std::string& name, torch::Tensor parameter, const torch::Tensor& gradient, double rate) {
    const torch::NoGradGuard no_grad;
    const auto g = gradient.to(torch::kDouble);
    auto& mean = m[name];
    auto& square = v[name];
    if (!mean.defined()) mean = torch::zeros_like(g), square = torch::zeros_like(g);
    mean = config.beta1 * mean + (1 - config.beta1) * g;
    square = config.beta2 * square + (1 - config.beta2) * g * g;
    const auto p = parameter.to(torch::kDouble);
    const double decay = parameter.dim() >= 2 ? config.weight_decay : 0.0;
    const auto moved =
        p * (1 - rate * decay) - rate * (mean / (1 - std::pow(config.beta1, step))) /
                                     ((square / (1 - std::pow(config.beta2, step))).sqrt() + config.eps);
    parameter.copy_(moved);
  }
};

void expect_dense_adamw(torch::ScalarType type, double tolerance) {
  torch::manual_seed(1);
  Blt model(small_config()), reference(small_config());
  copy_parameters(*model, *reference);
  model->to(type);
  reference->to(type);
  const OptimizerConfig config = config_with(1e-2, 0.3);
  Optimizer optimizer(config);
  DenseAdamW dense;
  dense.config = config;
  const std::vector<Batch> batches = {Batch::pack({sequence("the first text")}),
                                      Batch::pack({sequence("another one")}),
                                      Batch::pack({sequence("and a third, longer than these")})};
  for (const Batch& batch : batches) {
    for (Blt* m : {&model, &reference}) next_id_loss((*m)(batch), batch).sum.backward();
    // The reference's rows become a dense gradient.
    auto& rows = reference->local_encoder->embedding->row_gradients;
    const RowGradient merged = ops::merge(rows);
    rows.clear();
    auto table_gradient = torch::zeros_like(reference->local_encoder->embedding->ngram_table);
    table_gradient.index_add_(0, merged.ids.slice(0, 0, merged.count.item<int64_t>()),
                              merged.values.slice(0, 0, merged.count.item<int64_t>()));
    ++dense.step;
    for (auto& item : reference->named_parameters()) {
      const bool table = item.key() == "local_encoder.embedding.ngram_table";
      dense.update(item.key(), item.value(), table ? table_gradient : item.value().grad(),
                   config.learning_rate * 0.5);
      item.value().mutable_grad() = torch::Tensor();
    }
    const Gradients gradients = take_gradients(*model);
    optimizer.step(gradients, clip(gradients, 0), 0.5);
    const auto expected = reference->named_parameters();
    for (const auto& item : model->named_parameters()) {
      const auto difference = (item.value() - expected[item.key()]).abs().max().item<double>();
      EXPECT_LE(difference, tolerance) << item.key() << " after step " << dense.step;
      // Both go on from the same numbers: rounding is compared, not its growth.
    }
    copy_parameters(*reference, *model);
  }
}

TEST(AdamW, MovesEveryParameterAndEveryRowAsDenseAdamWDoes) {
  expect_dense_adamw(torch::kFloat, 2e-6);
  expect_dense_adamw(torch::kDouble, 1e-14);
}

TEST(GradientNorms, OfModulesAreThoseOfTheirParameters) {
  torch::manual_seed(1);
  Blt model(small_config());
  model->local_decoder->norm->weight.requires_grad_(false);
  const std::vector<std::string> modules = gradient_modules(*model);
  EXPECT_EQ(modules, (std::vector<std::string>{"local_encoder", "latent_transformer", "local_decoder",
                                               "lm_head", "ngram_tables"}));
  const Batch batch = Batch::pack({sequence("some text of some length")});
  next_id_loss(model(batch), batch).sum.backward();
  const Gradients gradients = take_gradients(*model);
  std::map<std::string, double> expected;
  for (const auto& item : gradients.dense)
    expected[item.name.substr(0, item.name.find('.'))] +=
        item.gradient.to(torch::kDouble).square().sum().item<double>();
  for (const auto& item : gradients.rows)
    expected["ngram_tables"] += item.gradient.values.to(torch::kDouble).square().sum().item<double>();
  const torch::Tensor squares = squared_norms(gradients, modules);
  ASSERT_EQ(squares.numel(), 5);
  for (size_t i = 0; i < modules.size(); ++i) {
    const auto square = squares[static_cast<int64_t>(i)].item<double>();
    EXPECT_GT(square, 0) << modules[i];
    EXPECT_NEAR(square, expected[modules[i]], 1e-5 * square) << modules[i];
  }
  EXPECT_NEAR(squares.sum().sqrt().item<double>(), norm(gradients).item<double>(), 1e-5);
  EXPECT_TRUE(torch::equal(squared_norms({}, modules), torch::zeros({5}, torch::kDouble)));
  EXPECT_THROW(squared_norms(gradients, std::vector<std::string>{"local_encoder"}), c10::Error);
}

TEST(AdamW, AStepThatIsNotFiniteChangesNothing) {
  torch::manual_seed(1);
  Blt model(small_config());
  const Batch batch = Batch::pack({sequence("some text")});
  Optimizer optimizer(config_with(1e-2));
  next_id_loss(model(batch), batch).sum.backward();
  Gradients gradients = take_gradients(*model);
  optimizer.step(gradients, clip(gradients, 1.0), 1.0);
  std::vector<torch::Tensor> before;
  for (const auto& parameter : model->parameters()) before.push_back(parameter.detach().clone());

  next_id_loss(model(batch), batch).sum.backward();
  gradients = take_gradients(*model);
  gradients.dense[3].gradient.view(-1)[0] = std::numeric_limits<float>::infinity();
  const ClipResult result = clip(gradients, 1.0);
  EXPECT_EQ(result.found_inf.item<float>(), 1.0F);
  optimizer.step(gradients, result, 1.0);
  size_t i = 0;
  for (const auto& item : model->named_parameters())
    EXPECT_TRUE(torch::equal(item.value(), before[i++])) << item.key();
}

// One step of a model on a text; what its parameters are afterwards.
std::map<std::string, torch::Tensor> step_of(Blt& model, Optimizer& optimizer, const std::string& text,
                                             bool masked = false) {
  const Batch batch = Batch::pack({sequence(text)});
  next_id_loss(model(batch), batch).sum.backward();
  const Gradients gradients = take_gradients(*model);
  const torch::Tensor loss = torch::full({}, masked ? std::numeric_limits<float>::quiet_NaN() : 1.0F);
  optimizer.step(gradients, clip(gradients, 0.0, loss), 1.0);
  std::map<std::string, torch::Tensor> result;
  for (const auto& item : model->named_parameters()) result[item.key()] = item.value().detach().clone();
  return result;
}

constexpr const char* kTable = "local_encoder.embedding.ngram_table";

TEST(AdamW, TheVeryFirstStepMayBeMaskedByTheLoss) {
  torch::manual_seed(1);
  Blt model(small_config()), other(small_config());
  copy_parameters(*model, *other);
  Optimizer optimizer(config_with(1e-2)), fresh(config_with(1e-2));
  const auto before = model->named_parameters();
  const auto masked = step_of(model, optimizer, "some text", /*masked=*/true);
  for (const auto& [name, value] : masked)
    EXPECT_TRUE(torch::equal(value, other->named_parameters()[name])) << name;
  // It left no trace in the moments and their corrections either.
  const auto one = step_of(model, optimizer, "some text"), two = step_of(other, fresh, "some text");
  for (const auto& [name, value] : one) EXPECT_TRUE(torch::equal(value, two.at(name))) << name;
}

TEST(AdamW, LazyLeavesRowsAloneThatWereNotTouched) {
  torch::manual_seed(1);
  Blt exact(small_config()), lazy(small_config());
  copy_parameters(*exact, *lazy);
  OptimizerConfig lazy_config = config_with(1e-2);
  lazy_config.table_update = TableUpdate::kLazy;
  Optimizer exact_optimizer(config_with(1e-2)), lazy_optimizer(lazy_config);
  const torch::Tensor initial = exact->local_encoder->embedding->ngram_table.detach().clone();
  const auto a = step_of(exact, exact_optimizer, "abcabc"), b = step_of(lazy, lazy_optimizer, "abcabc");
  const torch::Tensor moved = (b.at(kTable) != initial).any(1);
  const auto touched = moved.sum().item<int64_t>();
  EXPECT_GT(touched, 4);
  EXPECT_LT(touched, initial.size(0) / 2);
  EXPECT_TRUE(
      torch::equal(a.at(kTable).index({moved}), b.at(kTable).index({moved})));  // the same where touched
  EXPECT_TRUE(((a.at(kTable) != initial).any(1)).all().item<bool>());           // weight decay moves the rest
}

// Masters by the names of their parameters, as checkpoints have them.
std::map<std::string, torch::Tensor> masters_of(const Optimizer& optimizer) {
  const blt_test::TemporaryFolder folder;
  save_optimizer(folder / "optimizer.safetensors", optimizer.state());
  const SafetensorsFile file(folder / "optimizer.safetensors");
  std::map<std::string, torch::Tensor> masters;
  constexpr std::string_view kEnd = ".master";
  for (const SafetensorsEntry& entry : file.entries())
    if (entry.name.ends_with(kEnd))
      masters[entry.name.substr(0, entry.name.size() - kEnd.size())] = file.tensor(entry.name).clone();
  return masters;
}

TEST(Masters, MoveAsFloat32ParametersDoAndTheParametersAreTheyRounded) {
  torch::manual_seed(1);
  Blt model(small_config()), reference(small_config());  // whose parameters only stand for numbers
  copy_parameters(*model, *reference);
  const OptimizerConfig config = config_with(1e-2, 0.3);
  Optimizer optimizer(config);
  optimizer.narrow(*model);
  DenseAdamW dense;
  dense.config = config;
  for (const std::string text : {"the first text", "another one", "and a third, longer than these"}) {
    const Batch batch = Batch::pack({sequence(text)});
    next_id_loss(model(batch), batch).sum.backward();
    const Gradients gradients = take_gradients(*model);
    ++dense.step;
    auto expected = reference->named_parameters();
    for (const auto& item : gradients.dense) {
      EXPECT_EQ(item.gradient.scalar_type(), torch::kFloat) << item.name;
      dense.update(item.name, expected[item.name], item.gradient, 1e-2);
    }
    ASSERT_EQ(gradients.rows.size(), 1U);
    const RowGradient& rows = gradients.rows[0].gradient;
    EXPECT_EQ(rows.values.scalar_type(), torch::kFloat);
    auto table_gradient = torch::zeros_like(expected[kTable]);
    table_gradient.index_add_(0, rows.ids, rows.values);
    dense.update(kTable, expected[kTable], table_gradient, 1e-2);
    optimizer.step(gradients, clip(gradients, 0), 1.0);
    const auto masters = masters_of(optimizer);
    for (const auto& item : model->named_parameters()) {
      const torch::Tensor master = masters.at(item.key());
      EXPECT_EQ(item.value().scalar_type(), torch::kBFloat16);
      EXPECT_TRUE(torch::equal(item.value(), master.to(torch::kBFloat16))) << item.key();
      EXPECT_LE((master - expected[item.key()]).abs().max().item<double>(), 5e-6)
          << item.key() << " after step " << dense.step;
    }
  }
}

// Steps that bfloat16 would round away: 1 - 0.0001 is 1 there, each time.
TEST(Masters, AddUpUpdatesThatAreTooSmallForTheParameter) {
  RmsNorm norm(4, 1e-5);
  Optimizer optimizer(config_with(1e-4, 0.0));
  optimizer.narrow(*norm);
  const auto step = [&] {
    Gradients gradients;
    gradients.dense.push_back({"weight", norm->weight, torch::ones({4})});
    optimizer.step(gradients, clip(gradients, 0), 1.0);
  };
  step();
  EXPECT_TRUE(torch::equal(norm->weight, torch::ones({4}, torch::kBFloat16)));
  EXPECT_TRUE(torch::allclose(masters_of(optimizer).at("weight"), torch::full({4}, 0.9999f), 0, 1e-7));
  for (int i = 1; i < 100; ++i) step();
  EXPECT_TRUE(torch::allclose(masters_of(optimizer).at("weight"), torch::full({4}, 0.99f), 0, 1e-5));
  EXPECT_TRUE(torch::equal(norm->weight, torch::full({4}, 0.99f).to(torch::kBFloat16)));
  // What happens without masters.
  torch::Tensor alone = torch::ones({4}, torch::kBFloat16);
  for (int i = 0; i < 100; ++i) alone = (alone.to(torch::kFloat) - 1e-4).to(torch::kBFloat16);
  EXPECT_TRUE(torch::equal(alone, torch::ones({4}, torch::kBFloat16)));
}

TEST(Masters, GradientsOfSeveralBackwardPassesAddUpInFloat32) {
  RmsNorm norm(4, 1e-5);
  Optimizer optimizer(config_with(1e-4));
  optimizer.narrow(*norm);
  for (const double factor : {256.0, 1.0, 0.25}) (norm->weight * factor).sum().backward();
  const Gradients gradients = take_gradients(*norm);
  ASSERT_EQ(gradients.dense.size(), 1U);
  EXPECT_TRUE(torch::equal(gradients.dense[0].gradient, torch::full({4}, 257.25f)));
}

TEST(Masters, OfTablesMoveLazilyToo) {
  torch::manual_seed(1);
  Blt exact(small_config()), lazy(small_config());
  copy_parameters(*exact, *lazy);
  const torch::Tensor initial = exact->local_encoder->embedding->ngram_table.detach().clone();
  OptimizerConfig lazy_config = config_with(1e-2);
  lazy_config.table_update = TableUpdate::kLazy;
  Optimizer exact_optimizer(config_with(1e-2)), lazy_optimizer(lazy_config);
  exact_optimizer.narrow(*exact);
  lazy_optimizer.narrow(*lazy);
  auto a = step_of(exact, exact_optimizer, "abcabc"), b = step_of(lazy, lazy_optimizer, "abcabc");
  torch::Tensor one = masters_of(exact_optimizer).at(kTable), other = masters_of(lazy_optimizer).at(kTable);
  const torch::Tensor moved = (other != initial).any(1);
  EXPECT_GT(moved.sum().item<int64_t>(), 4);
  EXPECT_LT(moved.sum().item<int64_t>(), initial.size(0) / 2);
  EXPECT_TRUE(torch::equal(one.index({moved}), other.index({moved})));
  EXPECT_TRUE((one != initial).any(1).all().item<bool>());
  for (int i = 0; i < 3; ++i) {  // rows that come and go
    a = step_of(exact, exact_optimizer, i == 1 ? "abc" : "xyzabc");
    b = step_of(lazy, lazy_optimizer, i == 1 ? "abc" : "xyzabc");
  }
  one = masters_of(exact_optimizer).at(kTable), other = masters_of(lazy_optimizer).at(kTable);
  EXPECT_TRUE(torch::equal(a.at(kTable), one.to(torch::kBFloat16)));
  EXPECT_TRUE(torch::equal(b.at(kTable), other.to(torch::kBFloat16)));
  EXPECT_TRUE((other == initial).all(1).any().item<bool>());
}

// From a file into a model whose parameters have `narrow`, or not; the file is of one that was narrowed, or not.
TEST(Masters, GoOnFromAFileOfEitherType) {
  const blt_test::TemporaryFolder folder;
  for (const bool from_narrow : {false, true})
    for (const bool to_narrow : {false, true}) {
      SCOPED_TRACE(std::string(from_narrow ? "bfloat16" : "float32") + " to " +
                   (to_narrow ? "bfloat16" : "float32"));
      torch::manual_seed(1);
      Blt model(small_config()), again(small_config());
      Optimizer optimizer(config_with(1e-2)), resumed(config_with(1e-2));
      if (from_narrow) optimizer.narrow(*model);
      step_of(model, optimizer, "some text");
      const auto file = folder / "optimizer.safetensors";
      save_optimizer(file, optimizer.state());
      copy_parameters(*model, *again);  // as their file has them: rounded
      if (to_narrow) resumed.narrow(*again);
      resumed.load(file, *again);
      const auto before = masters_of(optimizer), after = masters_of(resumed);
      EXPECT_EQ(before.empty(), !from_narrow);
      EXPECT_EQ(after.empty(), !to_narrow);
      for (const auto& item : again->named_parameters()) {
        const torch::Tensor source =
            from_narrow ? before.at(item.key()) : model->named_parameters()[item.key()].detach();
        EXPECT_TRUE(torch::equal(item.value(), source.to(item.value().scalar_type()))) << item.key();
        if (to_narrow) {
          EXPECT_TRUE(torch::equal(after.at(item.key()), source)) << item.key();
        }
      }
      const auto one = step_of(model, optimizer, "another"), two = step_of(again, resumed, "another");
      for (const auto& [name, value] : one)
        if (from_narrow == to_narrow) {
          EXPECT_TRUE(torch::equal(value, two.at(name))) << name;
        }
    }
}

TEST(Masters, AreAskedForByAStep) {
  RmsNorm norm(4, 1e-5);
  norm->to(torch::kBFloat16);
  Gradients gradients;
  gradients.dense.push_back({"weight", norm->weight, torch::ones({4})});
  Optimizer optimizer(config_with(1e-4));
  EXPECT_THROW(optimizer.step(gradients, clip(gradients, 0), 1.0), c10::Error);
  EXPECT_THROW(optimizer.narrow(*norm), c10::Error);
}

TEST(AdamW, GoesOnFromItsFile) {
  const blt_test::TemporaryFolder folder;
  const auto file = folder / "optimizer.safetensors";
  Optimizer resumed(config_with(1e-2));
  for (const torch::ScalarType type : {torch::kDouble, torch::kFloat}) {
    torch::manual_seed(1);
    Blt model(small_config()), again(small_config());
    model->to(type);
    again->to(type);
    Optimizer optimizer(config_with(1e-2));
    step_of(model, optimizer, "some text");
    save_optimizer(file, optimizer.state());
    resumed.load(file, *model);
    copy_parameters(*model, *again);
    const auto one = step_of(model, optimizer, "another"), two = step_of(again, resumed, "another");
    for (const auto& [name, value] : one) EXPECT_TRUE(torch::equal(value, two.at(name))) << name;
  }
  Blt wide_type(small_config());
  wide_type->to(torch::kDouble);
  EXPECT_THROW(resumed.load(file, *wide_type), Error);

  BltConfig wide = small_config();
  wide.ngram.rows = 60;
  EXPECT_THROW(resumed.load(file, *Blt(wide)), Error);
  BltConfig tied = small_config();
  tied.tie_embeddings = true;
  EXPECT_THROW(resumed.load(file, *Blt(tied)), Error);
}

struct TableState {
  TableMoments moments;
  SecondMoment second;

  OptimizerConfig config() const {
    OptimizerConfig result = config_with(1e-2);
    result.table_moments = moments;
    result.table_second_moment = second;
    return result;
  }
  torch::ScalarType type() const {
    return moments == TableMoments::kBfloat16 ? torch::kBFloat16 : torch::kFloat;
  }
  bool by_row() const { return second == SecondMoment::kRow; }
  std::string text() const { return fmt::format("{}, {}", name(moments), name(second)); }
};
constexpr TableState kTableStates[] = {{TableMoments::kFloat32, SecondMoment::kElement},
                                       {TableMoments::kFloat32, SecondMoment::kRow},
                                       {TableMoments::kBfloat16, SecondMoment::kElement},
                                       {TableMoments::kBfloat16, SecondMoment::kRow}};

std::map<std::string, torch::Tensor> tensors_of(const Optimizer& optimizer) {
  std::map<std::string, torch::Tensor> result;
  for (const OptimizerTensor& item : optimizer.state()) result[item.name] = item.tensor.clone();
  return result;
}

const std::string kFirst = std::string(kTable) + ".exp_avg", kSecond = std::string(kTable) + ".exp_avg_sq";

TEST(TableState, OfTheFirstStepFollowsFromItsGradient) {
  for (const TableState& state : kTableStates) {
    SCOPED_TRACE(state.text());
    torch::manual_seed(1);
    Blt model(small_config());
    const torch::Tensor before = model->local_encoder->embedding->ngram_table.detach().clone();
    Optimizer optimizer(state.config(), {}, /*seed=*/5);
    const Batch batch = Batch::pack({sequence("some text")});
    next_id_loss(model(batch), batch).sum.backward();
    const Gradients gradients = take_gradients(*model);
    torch::Tensor gradient = torch::zeros_like(before);
    gradient.index_add_(0, gradients.rows[0].gradient.ids, gradients.rows[0].gradient.values);
    optimizer.step(gradients, clip(gradients, 0), 1.0);
    const auto tensors = tensors_of(optimizer);
    const torch::Tensor first = tensors.at(kFirst), second = tensors.at(kSecond);
    EXPECT_EQ(first.scalar_type(), state.type());
    EXPECT_EQ(first.sizes(), before.sizes());
    EXPECT_EQ(second.scalar_type(), state.by_row() ? torch::kFloat : state.type());
    EXPECT_EQ(second.dim(), state.by_row() ? 1 : 2);
    const double ulp = state.type() == torch::kFloat ? 1e-5 : 1.0 / 128;
    EXPECT_TRUE(torch::allclose(first.to(torch::kFloat), gradient * 0.1, ulp, 1e-12));
    const torch::Tensor square = state.by_row() ? gradient.square().mean(1) : gradient.square();
    EXPECT_TRUE(torch::allclose(second.to(torch::kFloat), square * 0.05, state.by_row() ? 1e-5 : ulp, 1e-12));
    // The table moved by what was computed, not by what was kept of it.
    const torch::Tensor root = (state.by_row() ? square.unsqueeze(1) : square).sqrt();
    const torch::Tensor expected = before * (1 - 1e-2 * 0.1) - 1e-2 * gradient / (root + 1e-8);
    EXPECT_TRUE(torch::allclose(model->local_encoder->embedding->ngram_table, expected, 1e-4, 1e-6));
    // All else has the state that it always has.
    for (const auto& [name, tensor] : tensors)
      if (name != kFirst && name != kSecond) {
        EXPECT_EQ(tensor.scalar_type(), torch::kFloat) << name;
      }
    int64_t bytes = 0;
    for (const auto& item : model->named_parameters())
      bytes += optimizer.state_bytes(item.key(), item.value()) + 4;  // and .step
    for (const auto& [name, tensor] : tensors) bytes -= static_cast<int64_t>(tensor.nbytes());
    EXPECT_EQ(bytes, 0);
  }
}

TEST(TableState, OfAMaskedStepStays) {
  for (const TableState& state : kTableStates) {
    torch::manual_seed(1);
    Blt model(small_config());
    Optimizer optimizer(state.config());
    step_of(model, optimizer, "some text");
    auto before = tensors_of(optimizer);
    before[kTable] = model->named_parameters()[kTable].detach().clone();
    step_of(model, optimizer, "another text", /*masked=*/true);
    auto after = tensors_of(optimizer);
    after[kTable] = model->named_parameters()[kTable].detach();
    for (const auto& [name, tensor] : before)
      EXPECT_TRUE(torch::equal(tensor, after.at(name))) << state.text() << " " << name;
  }
}

TEST(TableState, GoesOnFromItsFileAndRefusesAnother) {
  const blt_test::TemporaryFolder folder;
  const auto file = folder / "optimizer.safetensors";
  for (const TableState& state : kTableStates)
    for (const bool narrow : {false, true})
      for (const TableUpdate table_update : {TableUpdate::kExact, TableUpdate::kLazy}) {
        SCOPED_TRACE(state.text() + (narrow ? ", masters" : ""));
        torch::manual_seed(1);
        Blt model(small_config()), again(small_config()), with_other_seed(small_config());
        OptimizerConfig config = state.config();
        config.table_update = table_update;
        Optimizer optimizer(config, {}, /*seed=*/3), resumed(config, {}, /*seed=*/3),
            of_other_seed(config, {}, /*seed=*/4);
        if (narrow) {
          optimizer.narrow(*model);
          resumed.narrow(*again);
        }
        step_of(model, optimizer, "some text");
        step_of(model, optimizer, "some more text");
        save_optimizer(file, optimizer.state());
        copy_parameters(*model, *again);
        copy_parameters(*model, *with_other_seed);
        resumed.load(file, *again);
        const auto one = step_of(model, optimizer, "another"), two = step_of(again, resumed, "another");
        for (const auto& [name, value] : one) EXPECT_TRUE(torch::equal(value, two.at(name))) << name;
        const auto first = tensors_of(optimizer), second = tensors_of(resumed);
        ASSERT_EQ(first.size(), second.size());
        for (const auto& [name, tensor] : first) EXPECT_TRUE(torch::equal(tensor, second.at(name))) << name;
        if (!narrow) {  // the seed is part of what a step does
          of_other_seed.load(file, *with_other_seed);
          step_of(with_other_seed, of_other_seed, "another");
          EXPECT_EQ(torch::equal(tensors_of(of_other_seed).at(kFirst), first.at(kFirst)),
                    state.moments == TableMoments::kFloat32);
        }
        for (const TableState& other : kTableStates) {
          if (other.text() == state.text()) continue;
          Optimizer of_other(other.config());
          EXPECT_MESSAGE(of_other.load(file, *again),
                         "a resume keeps train.optimizer.table_moments and table_second_moment as they were");
        }
      }
}

TEST(ParameterGroups, ScaleRatesChooseDecayAndFreeze) {
  torch::manual_seed(1);
  Blt plain(small_config()), grouped(small_config());
  copy_parameters(*plain, *grouped);
  const std::vector<ParameterGroup> groups = {{"*norm.weight", 1.0, 0.5, {}, false},
                                              {"local_decoder.*", 0.5, std::nullopt, {}, false},
                                              {"*.ngram_table", 1.0, std::nullopt, {}, true},
                                              {"*", 1.0, 0.0, {}, false}};
  Optimizer plain_optimizer(config_with(1e-2, 0.0));
  Optimizer optimizer(config_with(1e-2, 0.0, groups));
  freeze_groups(*grouped, groups);
  // Without decay and with the same first gradient, a first step of AdamW is proportional to its rate.
  std::map<std::string, torch::Tensor> start;
  for (const auto& item : plain->named_parameters()) start[item.key()] = item.value().detach().clone();
  const auto a = step_of(plain, plain_optimizer, "some text"), b = step_of(grouped, optimizer, "some text");
  for (const auto& [name, before] : start) {
    const torch::Tensor one = a.at(name) - before, other = b.at(name) - before;
    if (name == kTable)
      EXPECT_TRUE(torch::equal(b.at(name), before));
    else if (name.ends_with("norm.weight"))
      EXPECT_TRUE(torch::allclose(other, one - 1e-2 * 0.5 * before, 1e-3, 1e-5)) << name;
    else
      EXPECT_TRUE(torch::allclose(other, one * (name.starts_with("local_decoder.") ? 0.5 : 1.0), 1e-2, 2e-5))
          << name;
  }
  EXPECT_THROW(freeze_groups(*grouped, {{"local_decodr.*", 1.0, std::nullopt, {}, false}}), Error);
  EXPECT_THROW(freeze_groups(*grouped, {{"*", 1.0, std::nullopt, {}, true}}), Error);
}

TEST(Gradients, AreTakenOnceAndClippedByTheNormOfAllOfThem) {
  torch::manual_seed(1);
  Blt model(small_config());
  const Batch batch = Batch::pack({sequence("some text"), sequence("more")});
  next_id_loss(model(batch), batch).sum.backward();
  const Gradients gradients = take_gradients(*model);
  ASSERT_EQ(gradients.rows.size(), 1U);
  double squares = 0;
  for (const auto& item : gradients.dense)
    squares += item.gradient.to(torch::kDouble).pow(2).sum().item<double>();
  squares += gradients.rows[0].gradient.values.to(torch::kDouble).pow(2).sum().item<double>();
  const ClipResult clipped = clip(gradients, 0.5);
  EXPECT_NEAR(clipped.norm.item<double>(), std::sqrt(squares), 1e-4 * std::sqrt(squares));
  EXPECT_NEAR(clipped.scale.item<double>(), 0.5 / std::sqrt(squares), 1e-4);
  EXPECT_EQ(clip(gradients, 0).scale.item<float>(), 1.0F);
  EXPECT_EQ(clip(gradients, 1e9).scale.item<float>(), 1.0F);

  const Gradients again = take_gradients(*model);
  EXPECT_TRUE(again.dense.empty() && again.rows.empty());
}

}  // namespace
}  // namespace blt
