// The way of what an optimizer's step moved to all ranks, behind what they compute next.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "blt/model/arriving.h"
#include "blt/train/group.h"
#include "train/buckets.h"

namespace blt {

// Each rank has moved its range of every bucket of parameters that belong to no unit; all ranges are put together in place. With overlap the
// next forward pass does that: the bucket that is read first travels from send() on, the others, in the order in which a forward pass reads
// them, once that one has been asked for. So look-ups in tables, which the first module begins with, have no other bucket before them.
//
// Until then parameters are read by modules that wait for them alone (Arriving); buckets with others are there when send() returns. All ranks
// call the same functions in the same order, forward passes included. Not thread-safe.
class MovedParameters {
 public:
  // All outlive this; `parameters` are those of `buckets` and belong to `module`.
  MovedParameters(Group& group, torch::nn::Module& module, const std::vector<Trained>& parameters,
                  const Buckets& buckets, bool overlap);
  ~MovedParameters();
  MovedParameters(const MovedParameters&) = delete;
  MovedParameters& operator=(const MovedParameters&) = delete;

  // After a step: all parameters of the one before have to be there (finish()).
  void send();
  // Waits for what is left.
  void finish();
  // Whether something does not travel before a forward pass asks for it, or finish().
  bool is_waiting() const { return next_ > 0; }

 private:
  struct Way {
    const Buckets::Bucket* bucket = nullptr;
    bool is_read_by_all = true;  // every reader waits
    Group::Pending coming = {};  // its values in `all`
    at::Tensor all = {};         // [size], in the parameters' type
  };
  void begin_next();
  void arrive(size_t way);

  Group& group_;
  const std::vector<Trained>& parameters_;
  const Buckets& buckets_;
  bool overlap_;
  std::vector<Way> ways_;  // in the order of buckets, which is that of a backward pass
  size_t next_ = 0;        // behind the last one that does not travel yet
  std::vector<std::shared_ptr<torch::nn::Module>> readers_;
};

}  // namespace blt
