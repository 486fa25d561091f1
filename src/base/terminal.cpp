#include "blt/base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace blt {
namespace {

std::atomic<bool> is_open{false};
static_assert(std::atomic<bool>::is_always_lock_free, "signal handlers may only touch lock-free atomics");

}  // namespace

std::optional<size_t> terminal_columns(int descriptor) {
  winsize size = {};
  if (isatty(descriptor) == 0) return std::nullopt;
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool takes_escapes(int descriptor) {
  const char* kind = std::getenv("TERM");
  return isatty(descriptor) != 0 && kind != nullptr && std::string_view(kind) != "dumb";
}

void OpenLine::begin() { is_open.store(true); }
void OpenLine::end() {
  if (forget()) std::fputc('\n', stderr);
}
bool OpenLine::forget() { return is_open.exchange(false); }

}  // namespace blt
