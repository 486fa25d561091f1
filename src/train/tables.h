// What ranks do with the n-gram tables, of which a step touches a few thousand rows. The dense parameters are no business of theirs.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blt/model/ngram_embedding.h"
#include "blt/train/parallel.h"
#include "train/buckets.h"

namespace blt {

// The n-gram embedding whose table this is; null where it is none.
NgramEmbeddingImpl* table_owner(const torch::nn::Module& module, const at::Tensor& parameter);

// The tables of a module that take gradients. All ranks call the same functions in the same order. Not thread-safe.
class Tables {
 public:
  struct Table {
    Trained table;
    NgramEmbeddingImpl* embedding = nullptr;
  };

  virtual ~Tables() = default;
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;

  const std::vector<Table>& all() const { return tables_; }
  // Which rows the optimizer of `rank` moves.
  virtual Parts parts_of(int64_t rank) const = 0;
  // Whether each rank's gradients are those of its own rows.
  virtual bool is_divided() const = 0;

  // After the backward passes of a step: the rows that this rank's optimizer moves.
  virtual std::vector<Gradients::Rows> finish_gradients() = 0;
  // After the optimizer's step: starts to bring the tables into the state that the next forward pass reads.
  virtual void send_moved(std::vector<Group::Pending>& coming) = 0;
  // See Parallel.
  virtual void finish_forwards() {}
  virtual void with_whole(const std::function<void()>& body);

 protected:
  Tables(Group& group, torch::nn::Module& module, WireType wire);

  // Rows [begin, end) of a whole table are those of `rank`.
  static Part rows_of(int64_t rank, int64_t ranks, int64_t rows) {
    return {rows * rank / ranks, rows * (rank + 1) / ranks};
  }
  // The merged rows of this rank's backward passes, which are forgotten.
  static RowGradient take(const Table& table);

  Group& group() const { return group_; }
  // The types of gradients on their way, and of their sums.
  at::ScalarType wire_type(const Table& table) const;
  static at::ScalarType sum_type(const Table& table);

 private:
  Group& group_;
  WireType wire_;
  std::vector<Table> tables_;
};

// Every rank has every table whole, and gets all rows' gradients. `is_divided`: its optimizer moves a range of rows, and whole tables travel
// after the step.
std::unique_ptr<Tables> make_replicated_tables(Group& group, torch::nn::Module& module, WireType wire,
                                               bool is_divided);

// Every rank has a range of the rows, and of their optimizer state. Look-ups and gradients go to the ranks that have the rows; between a
// step and the next forward pass nothing travels. The module's tables, whole until then, are cut here, and put together for with_whole().
std::unique_ptr<Tables> make_sharded_tables(Group& group, torch::nn::Module& module, WireType wire);

}  // namespace blt
