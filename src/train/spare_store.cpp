#include "train/spare_store.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "train/in_time.h"
#include "train/tcp_store.h"

namespace blt {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAnswerTime(3000);  // of the spare
constexpr const char* kVisits = "visits";

// Where other machines find this one.
std::string own_host(const RankPlace& place) {
  if (place.local_ranks == place.ranks) return "127.0.0.1";
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return host.data();
}

// All but its keeper, and but the rank that keeps the other store, which will not come.
int64_t visitors_of(const RankPlace& place) { return place.ranks - (place.launcher_keeps_store ? 1 : 2); }

}  // namespace

SpareStore::SpareStore(const RankPlace& place)
    : rank_(place.rank),
      visitors_(visitors_of(place)),
      host_(own_host(place)),
      server_(tcp_store({.is_server = true})) {
  port_ = server_->getPort();
}

SpareStore::SpareStore(const RankPlace& place, const std::string& address)
    : rank_(place.rank), host_(address.substr(0, address.rfind(':'))) {
  port_ = static_cast<uint16_t>(std::stoi(address.substr(host_.size() + 1)));
}

std::string SpareStore::address() const { return fmt::format("{}:{}", host_, port_); }

bool SpareStore::claim(const std::string& what) {
  const std::string name = std::to_string(rank_);
  const auto come = [server = server_, host = host_, port = port_, what,
                     own = std::vector<uint8_t>(name.begin(), name.end())] {
    const auto store = server ? server : tcp_store({.host = host, .port = port, .timeout = kAnswerTime});
    const bool is_first = store->compareSet(what, {}, own) == own;
    if (!server) store->add(kVisits, 1);
    return is_first;
  };
  try {
    return in_time(come, kAnswerTime).value_or(true);
  } catch (const std::exception&) {  // it is lost too
    return true;
  }
}

void SpareStore::linger() {
  if (!server_) return;
  constexpr milliseconds kLongest(5000), kPollInterval(20);
  for (milliseconds waited(0); waited < kLongest && server_->add(kVisits, 0) < visitors_;
       waited += kPollInterval)
    std::this_thread::sleep_for(kPollInterval);
}

}  // namespace blt
