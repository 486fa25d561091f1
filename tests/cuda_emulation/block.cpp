// Runs the threads of a block as fibers; see device.h.
#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"
#include "ops/cuda/kernel.h"

namespace blt::emulation {
namespace {

constexpr size_t kStackBytes = 256 << 10;
constexpr unsigned kLanes = 32;

struct Thread {
  Fiber fiber{kStackBytes};
  enum { kReady, kAtBarrier, kAtMeeting, kDone } state;
  ThreadIndex index;
  Place place;      // where it waits
  uint64_t result;  // of the meeting
};

// Lanes of one warp that have come to a shuffle.
struct Gathering {
  Meeting meeting;
  unsigned mask, arrived;
  Place place;
  uint64_t values[kLanes];
  unsigned sources[kLanes];
};

std::string text(const Place& place) {
  const std::string file = place.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(place.line);
}

class Block {
 public:
  void run(const ThreadIndex& index, size_t shared_bytes, const std::function<void()>& thread,
           std::mt19937_64& lot) {
    thread_ = &thread;
    shared_.assign(shared_bytes / sizeof(Line) + 1, Line());
    size_ = index.block_size.x;
    gatherings_.assign((size_ + kLanes - 1) / kLanes, {});
    while (threads_.size() < size_) threads_.push_back(std::make_unique<Thread>());
    ready_.clear();
    for (unsigned t = 0; t < size_; ++t) {
      Thread& own = *threads_[t];
      own.index = index;
      own.index.thread = dim3(t, 0, 0);
      own.state = Thread::kReady;
      own.fiber.start(&Block::enter);
      ready_.push_back(t);
    }
    done_ = at_barrier_ = 0;
    failure_ = nullptr;
    while (done_ < size_) {
      if (ready_.empty()) report_stand_still();
      std::swap(ready_[lot() % ready_.size()], ready_.back());
      running_ = ready_.back();
      ready_.pop_back();
      threads_[running_]->fiber.resume();
      if (failure_) std::rethrow_exception(failure_);
    }
  }

  const ThreadIndex& index() const { return threads_[running_]->index; }
  unsigned char* shared() { return reinterpret_cast<unsigned char*>(shared_.data()); }

  void wait_for_block(Place place) {
    Thread& self = *threads_[running_];
    self.place = place;
    self.state = Thread::kAtBarrier;
    if (++at_barrier_ == size_) {
      for (unsigned t = 0; t < size_; ++t) {
        const Place& other = threads_[t]->place;
        TORCH_CHECK(other.line == place.line && std::strcmp(other.file, place.file) == 0,
                    "emulated CUDA: threads of one block wait at different barriers, ", text(place), " and ",
                    text(other));
        threads_[t]->state = Thread::kReady;
        ready_.push_back(t);
      }
      at_barrier_ = 0;
    }
    leave();
  }

  uint64_t meet(Meeting meeting, unsigned mask, uint64_t value, unsigned source, Place place) {
    const unsigned warp = running_ / kLanes, lane = running_ % kLanes;
    TORCH_CHECK(mask >> lane & 1, "emulated CUDA: lane ", lane, " is not in the mask that it gave at ",
                text(place));
    Gathering* gathering = nullptr;
    for (Gathering& open : gatherings_[warp])
      if (open.mask == mask) gathering = &open;
    if (gathering == nullptr) {
      gatherings_[warp].push_back({meeting, mask, 0, place, {}, {}});
      gathering = &gatherings_[warp].back();
    }
    TORCH_CHECK(gathering->meeting == meeting && gathering->place.line == place.line,
                "emulated CUDA: lanes of one mask met at ", text(gathering->place), " and at ", text(place));
    gathering->arrived |= 1u << lane;
    gathering->values[lane] = value;
    gathering->sources[lane] = source;
    Thread& self = *threads_[running_];
    self.place = place;
    self.state = Thread::kAtMeeting;
    if (gathering->arrived == mask) {
      dismiss(*gathering, warp);
      gatherings_[warp].erase(gatherings_[warp].begin() + (gathering - gatherings_[warp].data()));
    }
    leave();
    return self.result;
  }

 private:
  struct alignas(16) Line {  // of shared memory, as a block finds it
    unsigned char bytes[16];
    Line() { std::memset(bytes, 0xff, sizeof(bytes)); }
  };

  void dismiss(const Gathering& gathering, unsigned warp) {
    uint64_t ballot = 0;
    for (unsigned lane = 0; lane < kLanes; ++lane)
      if ((gathering.mask >> lane & 1) && gathering.values[lane] != 0) ballot |= uint64_t{1} << lane;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if (!(gathering.mask >> lane & 1)) continue;
      Thread& own = *threads_[warp * kLanes + lane];
      if (gathering.meeting == Meeting::kShuffle) {
        const unsigned source = gathering.sources[lane];
        TORCH_CHECK(source < kLanes && (gathering.mask >> source & 1), "emulated CUDA: at ",
                    text(gathering.place), " lane ", lane, " reads lane ", source,
                    ", which is not in the mask");
        own.result = gathering.values[source];
      } else {
        own.result = ballot;
      }
      own.state = Thread::kReady;
      ready_.push_back(warp * kLanes + lane);
    }
  }

  void report_stand_still() const {
    std::string waiting;
    unsigned named = 0;
    for (unsigned t = 0; t < size_ && named < 4; ++t)
      if (threads_[t]->state != Thread::kDone) {
        waiting += (named++ == 0 ? "" : ", ") + std::to_string(t) + " at " + text(threads_[t]->place);
      }
    TORCH_CHECK(false, "emulated CUDA: ", size_ - done_, " of ", size_,
                " threads wait for threads that do not come (", done_, " have returned): thread ", waiting);
  }

  void leave() { threads_[running_]->fiber.pause(); }

  static void enter();

  const std::function<void()>* thread_ = nullptr;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::vector<Line> shared_;
  std::vector<std::vector<Gathering>> gatherings_;  // of each warp
  std::vector<unsigned> ready_;
  unsigned size_ = 0, running_ = 0, done_ = 0, at_barrier_ = 0;
  std::exception_ptr failure_;
};

thread_local Block block;
thread_local std::mt19937_64 lot(1);
int64_t num_launches = 0;

void Block::enter() {
  try {
    (*block.thread_)();
  } catch (...) {  // may not leave the fiber
    block.failure_ = std::current_exception();
  }
  block.threads_[block.running_]->state = Thread::kDone;
  ++block.done_;
  block.leave();
}

}  // namespace

const ThreadIndex& here() { return block.index(); }
unsigned char* block_memory() { return block.shared(); }
void wait_for_block(Place place) { block.wait_for_block(place); }
uint64_t meet(Meeting meeting, unsigned mask, uint64_t value, unsigned source, Place place) {
  return block.meet(meeting, mask, value, source, place);
}

void run_grid(dim3 grid, dim3 threads, size_t shared_bytes, const std::function<void()>& thread) {
  TORCH_CHECK(grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x < (1u << 31) && grid.y < (1u << 16) &&
                  grid.z < (1u << 16) && threads.x > 0 && threads.x <= 1024 && shared_bytes <= (48u << 10),
              "emulated CUDA: a grid of ", grid.x, " x ", grid.y, " x ", grid.z, " blocks of ", threads.x,
              " threads with ", shared_bytes, " bytes of shared memory cannot be launched");
  ++num_launches;
  std::vector<uint64_t> order(uint64_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), lot);
  for (const uint64_t b : order) {
    const dim3 place(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                     static_cast<unsigned>(b / grid.x / grid.y));
    block.run({dim3(), place, threads, grid}, shared_bytes, thread, lot);
  }
}

void set_seed(uint64_t seed) { lot.seed(seed); }
int64_t launches() { return num_launches; }

}  // namespace blt::emulation
