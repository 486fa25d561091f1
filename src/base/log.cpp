#include "blt/base/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_color_sinks.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "blt/base/terminal.h"

namespace blt {

namespace {

spdlog::level::level_enum level_from_environment() {
  const char* text = std::getenv("BLT_LOG");
  const std::string wanted = text == nullptr ? "" : text;
  const auto level = spdlog::level::from_str(wanted);  // off for what it does not know
  return level == spdlog::level::off && wanted != "off" ? spdlog::level::info : level;
}

spdlog::logger& logger() {
  // Never destroyed: what ends after main may still log.
  static spdlog::logger* const instance = [] {
    const char* no_color = std::getenv("NO_COLOR");
    const bool plain = no_color != nullptr && *no_color != '\0';
    const auto mode = plain ? spdlog::color_mode::never : spdlog::color_mode::automatic;
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(mode);
    auto* made = new spdlog::logger("blt", std::move(sink));
    made->set_pattern("%H:%M:%S %^%l%$ %v");
    made->set_level(level_from_environment());
    return made;
  }();
  return *instance;
}

void log(spdlog::level::level_enum level, std::string_view message) {
  if (!logger().should_log(level)) return;
  OpenLine::end();
  logger().log(level, spdlog::string_view_t(message.data(), message.size()));
}

}  // namespace

void log_debug(std::string_view message) { log(spdlog::level::debug, message); }
void log_info(std::string_view message) { log(spdlog::level::info, message); }
void log_warning(std::string_view message) { log(spdlog::level::warn, message); }
void log_error(std::string_view message) { log(spdlog::level::err, message); }

}  // namespace blt
