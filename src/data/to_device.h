// Batches on a device, copied there beside the work that is under way.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <memory>
#include <optional>

#include "blt/batch.h"
#include "blt/data/stage.h"
#include "model/device_mark.h"

namespace blt {

// A batch whose copy may be under way, on a stream of the copies.
struct BatchOnItsWay {
  Batch batch;
  std::optional<DeviceMark> copied = {};  // none: nothing is under way

  // The batch for the calling thread's current stream of the device: work that is handed to it from now on begins behind the copy. Nobody waits.
  Batch arrive() &&;
};

// Copies its input's batches from pinned memory, on a stream of its own: on the one that computes they would queue behind all the steps that the
// trainer has handed over. To the CPU: as they are. (Not yet run on a GPU.)
class ToDevice : public Stage<BatchOnItsWay> {
 public:
  ToDevice(std::unique_ptr<Stage<Batch>> input, c10::Device device);

  std::optional<BatchOnItsWay> next() override;
  void save(StateWriter& out) const override { input_->save(out); }
  void load(const StateReader& in) override { input_->load(in); }

 private:
  std::unique_ptr<Stage<Batch>> input_;
  c10::Device device_;
  std::optional<c10::Stream> copies_ = {};  // none: the CPU
};

}  // namespace blt
