#include "train/row_writer.h"

#include <fmt/format.h>

#include "blt/base/error.h"
#include "train/in_time.h"

namespace blt {

void Rows::append(Rows later) {
  lines += later.lines;
  for (auto& event : later.events) events.push_back(std::move(event));
}

RowWriter::~RowWriter() {
  if (!waiting_.empty() || under_way_.valid()) write({});
}

std::string RowWriter::write(Rows rows) {
  waiting_.append(std::move(rows));
  const auto hangs = [&] {
    return fmt::format("{}: the disk has not answered within {:g} s", name_,
                       1e-3 * static_cast<double>(patience_.count()));
  };
  if (is_under_way(std::chrono::milliseconds(0))) return hangs();
  if (waiting_.empty()) return "";
  under_way_ = aside([write = write_, rows = std::exchange(waiting_, {})]() mutable -> Outcome {
    try {
      write(rows);
      return {};
    } catch (const Error& e) {
      return {.left = std::move(rows), .failure = e.what()};
    }
  });
  return is_under_way(patience_) ? hangs() : failure_;
}

bool RowWriter::is_under_way(std::chrono::milliseconds patience) {
  if (!under_way_.valid()) return false;
  if (!is_there(under_way_, patience)) return true;
  Outcome outcome = under_way_.get();
  failure_ = std::move(outcome.failure);
  outcome.left.append(std::exchange(waiting_, {}));
  waiting_ = std::move(outcome.left);
  return false;
}

}  // namespace blt
