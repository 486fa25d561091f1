// The processes (ranks) that train one model together, and how tensors travel between them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "blt/base/error.h"

namespace blt {

// A transfer failed because another rank failed, is gone, or hangs. The message says which and in what.
class GroupError : public Error {
 public:
  using Error::Error;
};

// How many rows go to and come from each rank, in their order.
struct ExchangeCounts {
  std::vector<int64_t> sent, received;

  int64_t total_sent() const { return std::accumulate(sent.begin(), sent.end(), int64_t{0}); }
  int64_t total_received() const { return std::accumulate(received.begin(), received.end(), int64_t{0}); }
};

// All ranks call the same operations in the same order, with tensors of the same shapes and dtypes: contiguous, and left alone until the
// transfer has been waited for. What comes out is the same on every rank, bit for bit, and from run to run. `what` names the transfer in
// messages ("gradients 3 of 7").
//
// Operations throw GroupError, at the call or in wait(). After that the group is of no use. Not thread-safe: one thread calls.
class Group {
 public:
  // A transfer under way; destroyed without wait(), it goes on. May outlive nothing: the group is there until the end.
  class Transfer {
   public:
    virtual ~Transfer() = default;
    virtual void wait() = 0;
  };
  using Pending = std::unique_ptr<Transfer>;

  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int64_t rank() const { return rank_; }
  int64_t size() const { return size_; }
  bool is_first() const { return rank_ == 0; }
  // Whether nothing can travel: a process by itself, which no launcher has started as a rank.
  virtual bool is_alone() const { return false; }

  // In place: the sum over all ranks; what `root` has.
  virtual Pending sum(const at::Tensor& tensor, std::string_view what) = 0;
  virtual Pending broadcast(const at::Tensor& tensor, int64_t root, std::string_view what) = 0;
  // input [size * n] -> output [n]: rank r gets the sum of everybody's r-th part.
  virtual Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                                 std::string_view what) = 0;
  // input [n] -> output [size * n]: everybody's, in the order of the ranks.
  virtual Pending all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view what) = 0;
  // input [size * n] -> output [size * n]: part r of the output is what rank r had as part `rank()`.
  virtual Pending all_to_all(const at::Tensor& output, const at::Tensor& input, std::string_view what) = 0;
  // The same with parts of any sizes, 0 included, along the first dimension: counts.sent[r] of the input go to rank r, the
  // counts.received[r] that rank r sent here are in the output, both in the order of the ranks.
  virtual Pending all_to_all(const at::Tensor& output, const at::Tensor& input, const ExchangeCounts& counts,
                             std::string_view what) = 0;
  // Returns when all ranks have called it.
  void barrier(std::string_view what);

  // Of a rank that cannot go on: tells the others why. False when another rank was first: it says what has happened, and nobody else needs
  // to. Returns within seconds, whatever state the others are in.
  virtual bool claim_failure(const std::string& message) = 0;

 protected:
  Group(int64_t rank, int64_t size) : rank_(rank), size_(size) {}

 private:
  int64_t rank_, size_;
};

// A rank by itself: nothing travels.
std::shared_ptr<Group> make_alone_group();

// Short things from the host's memory, waited for. All ranks give as many numbers.
std::vector<double> sum_of(Group& group, std::vector<double> numbers, std::string_view what);
std::vector<int64_t> sum_of_counts(Group& group, std::vector<int64_t> counts, std::string_view what);
// numbers [size * n] -> [size * n]: what all_to_all() does.
std::vector<int64_t> exchange_numbers(Group& group, std::vector<int64_t> numbers, std::string_view what);
// Every rank's text, in their order.
std::vector<std::string> gather(Group& group, const std::string& text, std::string_view what);

}  // namespace blt
