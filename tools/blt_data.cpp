// Looks at the text of a run: how much it is, how it is cut, what is in a batch; and computes its entropies beforehand.
#include "tools/data_commands.h"

namespace blt {
namespace {

int run(const DataOptions& options) {
  switch (options.command) {
    case DataCommand::kStats:
      return print_stats(options);
    case DataCommand::kCalibrate:
      return print_calibration(options);
    case DataCommand::kEntropies:
      return fill_entropy_cache(options);
    case DataCommand::kInspect:
      return print_batches(options);
  }
  return kWrongUsage;
}

}  // namespace
}  // namespace blt

int main(int argc, char** argv) {
  return blt::tool<blt::DataOptions>("blt_data", "Looks at the text of a run and prepares it.", argc, argv,
                                     blt::run);
}
