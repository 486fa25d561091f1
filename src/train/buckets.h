// Gradients on their way between ranks: packed into a few long tensors, each sent as soon as it is complete.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "blt/train/group.h"
#include "blt/train/optimizer.h"

namespace blt {

// A parameter that takes gradients.
struct Trained {
  std::string name;
  at::Tensor parameter;
  int64_t unit = -1;  // parameters of a unit have a bucket to themselves; -1: of none
};

// The parameters' gradients (of gradient_type()), in the order in which a backward pass makes them: the last parameter first.
class Buckets {
 public:
  struct Piece {
    size_t parameter = 0;           // index into the parameters given
    int64_t offset = 0, numel = 0;  // in the bucket
    bool is_filled = false;
  };
  struct Bucket {
    int64_t size = 0;  // a multiple of ranks()
    at::TensorOptions options = {};
    int64_t unit = -1;
    std::vector<Piece> pieces = {};
    at::Tensor values =
        {};  // [size]; there from its first gradient on, until they are taken. What no piece covers is 0
    size_t num_empty = 0;  // pieces that are not filled yet
  };
  // Sends a bucket that is complete.
  using Send = std::function<void(size_t bucket)>;

  Buckets(const std::vector<Trained>& parameters, int64_t bucket_bytes, int64_t ranks, Send send);

  // Takes a parameter's gradient (undefined: 0), and sends the buckets that are complete with it. Buckets are sent in one order, the same
  // on all ranks, whatever the order in which gradients come.
  void fill(size_t parameter, const at::Tensor& gradient);
  bool is_filled(size_t parameter) const { return piece(parameter).is_filled; }
  // The values of a bucket that is complete, which leave it.
  at::Tensor take(size_t bucket) { return std::exchange(buckets_[bucket].values, {}); }
  // All are empty again; values that were not taken are written over.
  void reset();

  const std::vector<Bucket>& all() const { return buckets_; }
  int64_t ranks() const { return ranks_; }
  // A parameter's place.
  size_t bucket_of(size_t parameter) const { return places_[parameter].bucket; }
  const Piece& piece(size_t parameter) const {
    const Place& place = places_[parameter];
    return buckets_[place.bucket].pieces[place.piece];
  }

  // Where ranks divide the gradients, each has a range of every bucket: as long as the others', in the order of the ranks.
  Part range_of(int64_t rank, const Bucket& bucket) const;
  // What is a parameter's of that: elements of the flattened parameter, maybe none.
  Part part_of(int64_t rank, size_t parameter) const;

 private:
  struct Place {
    size_t bucket = 0, piece = 0;
  };
  int64_t ranks_;
  std::vector<Bucket> buckets_;
  std::vector<Place> places_;
  Send send_;
  size_t next_ = 0;  // the first bucket that is not sent
};

}  // namespace blt
