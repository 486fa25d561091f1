// What ranks do with the n-gram tables, of which a step touches a few thousand rows. The dense parameters are no business of theirs.
#pragma once

#include <torch/nn/module.h>

#include <cstddef>
#include <cstdint>
#include <map>
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
  virtual ~Tables() = default;
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;

  // Which rows the optimizer of this rank moves.
  virtual Parts parts() const = 0;
  // Whether each rank's gradients are those of its own rows.
  virtual bool is_divided() const = 0;

  // After the backward passes of a step: the rows that this rank's optimizer moves.
  virtual std::vector<Gradients::Rows> finish_gradients() = 0;
  // After the optimizer's step: starts to bring the tables into the state that the next forward pass reads.
  // all_rows: the step moved rows without a gradient too.
  virtual void send_moved(std::vector<Group::Pending>& coming, bool all_rows) = 0;
  // See Parallel.
  virtual std::map<std::string, at::Tensor> own_parameters() const;
  virtual bool computes_together() const { return false; }
  virtual void make_whole() {}

 protected:
  struct Table {
    Trained table;
    NgramEmbeddingImpl* embedding = nullptr;

    int64_t rows() const { return table.parameter.size(0); }
    int64_t width() const { return table.parameter.size(1); }
  };

  Tables(Group& group, torch::nn::Module& module, WireType wire);

  Group& group() const { return group_; }
  const std::vector<Table>& all() const { return tables_; }
  // Rows [begin, end) of a table are those of `rank`.
  Part rows_of(int64_t rank, const Table& table) const {
    return {table.rows() * rank / group_.size(), table.rows() * (rank + 1) / group_.size()};
  }
  Part own_rows(const Table& table) const { return rows_of(group_.rank(), table); }
  // Of some ids in increasing order: the place behind those of each rank's rows. Waits for the device.
  std::vector<int64_t> ends_by_owner(const Table& table, const at::Tensor& ids) const;
  // All tables' own rows, as elements.
  Parts own_parts() const;
  // The merged rows of this rank's backward passes, which are forgotten; as many as there are. Waits for the device: the others are told how
  // many come.
  static RowGradient take(const Table& table);
  // With no room behind its rows. Waits for the device.
  static RowGradient without_room(const RowGradient& rows);
  // The type of gradients on their way; their sums are of gradient_type().
  at::ScalarType wire_type(const Table& table) const;
  // Starts to give all ranks the rows of a whole table that each of them has.
  void gather_rows(const Table& table, std::vector<Group::Pending>& coming) const;

 private:
  Group& group_;
  WireType wire_;
  std::vector<Table> tables_;
};

// Every rank has every table whole, and gets all rows' gradients. `is_divided`: its optimizer moves a range of rows, and what it moved travels
// after the step: whole tables, or the rows with gradients where it left the others alone.
std::unique_ptr<Tables> make_replicated_tables(Group& group, torch::nn::Module& module, WireType wire,
                                               bool is_divided);

// Every rank has a range of the rows, and of their optimizer state. Look-ups and gradients go to the ranks that have the rows; between a
// step and the next forward pass nothing travels. The module's tables are whole until the first forward pass that records gradients, and
// again after make_whole() until the next one.
std::unique_ptr<Tables> make_sharded_tables(Group& group, torch::nn::Module& module, WireType wire);

}  // namespace blt
