#include "train/same_run.h"

#include <gtest/gtest.h>

#include "blt/base/config_io.h"
#include "blt/base/files.h"
#include "blt/io/model_content.h"
#include "message.h"
#include "temporary_folder.h"

namespace blt {
namespace {

// A device's products round by the number of rows that are computed at once; the CPU's do not.
TEST(SameRun, BytesThatTheEntropyModelReadsAtOnceMayChangeOnTheCpuAlone) {
  const blt_test::TemporaryFolder folder;
  EntropyModelConfig shape;
  shape.dim = 16;
  shape.layers = 1;
  shape.heads = 2;
  write_file(folder / "config.json", model_content(EntropyModel(shape)).config);
  RunSettings settings;
  settings.data.sources.resize(1);
  settings.data.sources[0].paths = {"text.txt"};
  for (const char* device : {"cpu", "cuda", "cuda:1"}) {
    settings.data.entropy_device = device;
    settings.data.entropy_batch_bytes = 16384;
    write_file(folder / "run.yaml", to_yaml(settings));
    RunSettings now = load_config<RunSettings>(folder / "run.yaml");
    require_same_run(folder.path(), now, shape);
    now.data.entropy_batch_bytes = 8192;
    if (settings.data.entropy_device == "cpu")
      require_same_run(folder.path(), now, shape);
    else
      EXPECT_MESSAGE(require_same_run(folder.path(), now, shape),
                     "data.entropy_batch_bytes was 16384, is 8192");
  }
}

}  // namespace
}  // namespace blt
