// The two types that everything speaks: Segments and Batch. C++17-clean: device code includes this file.
//
// Letters used for dimensions, the same everywhere:
//   T bytes in the batch   P patches in the batch   D documents   C width   H heads   E head width   V
//   vocabulary   L layers
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "blt/text_place.h"

namespace blt {

// The vocabulary: a few special ids, then the 256 byte values (REFERENCE, section 1).
constexpr int32_t kBoe = 0;         // unused by libblt, kept so that ids agree with published models
constexpr int32_t kBos = 1;         // opens every sequence, alone in its patch
constexpr int32_t kEos = 2;         // closes a document, where the data says so
constexpr int32_t kByteOffset = 4;  // the id of byte b is b + kByteOffset
constexpr int64_t kVocabulary = 260;
constexpr int32_t kIgnore = -100;  // a target that takes no loss

// How a row of N things is cut into contiguous segments. Built only by its factories, so that offsets, ids
// and counts always agree. Cheap to copy. Thread-safe to read.
struct Segments {
  at::Tensor offsets;  // [count + 1] int32, offsets[0] == 0, offsets[count] == N, strictly increasing (only
                       // Batch::readers may have empty segments)
  // Known on the host: no device synchronisation to size an output.
  int64_t count = 0;
  int64_t longest = 0;  // things in the longest segment, or in the longest that there may be (filled_batch.h)
  int64_t total = 0;    // N

  at::Tensor ids() const;        // [N] int32: the segment each thing belongs to
  at::Tensor positions() const;  // [N] int32: the place of each thing in its segment, from 0
  Segments to(at::Device device) const;

  // From the length of each segment. Throws c10::Error on a negative length, on an empty one unless
  // `allow_empty`, and when the lengths add up to 2^31 or more.
  static Segments from_lengths(const std::vector<int64_t>& lengths, bool allow_empty = false);
  // From an [count + 1] int32 tensor. Reads it, so it waits for the device where it is on one. Throws as
  // above.
  static Segments from_offsets(const at::Tensor& offsets, bool allow_empty = false);
  // `count` segments of `length` things each: the k query slots of every patch.
  static Segments uniform(int64_t count, int64_t length, at::Device device);
};

// One sequence as a batch takes it: BOS, then bytes (then EOS), cut into patches.
struct PatchedSequence {
  std::vector<int32_t> ids;     // S ids, ids[0] == kBos
  std::vector<int64_t> starts;  // where patches start: 0, 1, …, increasing; S itself is the last one when the
                                // id that comes next, not seen yet, starts a patch (always so when S == 1)
  std::vector<int32_t> targets;  // S targets; empty: the next id each, and kIgnore for the last
  TextPlace place = {};          // where its bytes were read
};

// One micro-batch: T ids of D whole or cut documents, in P patches. Everything that the model and the loss
// read.
struct Batch {
  at::Tensor bytes;           // [T] int32 ids
  at::Tensor targets;         // [T] int32 the next id, kIgnore where no loss is taken
  Segments documents;         // T ids into D sequences: each starts with BOS, alone in its patch
  Segments patches;           // T ids into P patches; a patch never crosses a document
  Segments latent_documents;  // P patches into D documents
  Segments readers;  // T ids into P runs: run p reads latent p, the last patch completed before the NEXT id.
                     // The next id need not be in the batch: a last id goes by its own patch decision. A
                     // sequence's last run is empty unless that decision ends its patch.
  int64_t num_targets =
      0;  // targets that take a loss, counted by the loader: the step needs no device synchronisation
  int64_t num_byte_targets =
      0;  // those of them that are bytes, not special ids: what bits per byte divides by
  std::vector<TextPlace> places = {};  // [D] where the text of each sequence was read, on the host
  // Where the last sequences are filler (data/filled_batch.h): `documents`, of which those are empty and at the end of the text, so that no
  // n-gram of theirs is looked up. Undefined offsets: there is no filler.
  Segments text_documents = {};
  int64_t num_filler_documents = 0, num_filler_patches = 0;

  // Those whose n-grams are looked up.
  const Segments& hashed_documents() const {
    return text_documents.offsets.defined() ? text_documents : documents;
  }

  Batch to(at::Device device) const;

  // Lays sequences end to end. Throws c10::Error when a sequence breaks a rule above.
  static Batch pack(const std::vector<PatchedSequence>& sequences);
  // The same without patches, for models that read bytes alone (the entropy model): patches, latent_documents
  // and readers stay empty, and `starts` is ignored.
  static Batch pack_bytes(const std::vector<PatchedSequence>& sequences);
};

}  // namespace blt
