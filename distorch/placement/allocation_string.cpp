#include "distorch/placement/allocation_string.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/text.h"
#include "distorch/base/units.h"

namespace distorch::placement {
namespace {

constexpr int kLargestIndex = 4095;

std::string_view trim(std::string_view text) {
  auto space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    auto end = text.find(at);
    parts.push_back(trim(text.substr(0, end)));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

[[noreturn]] void fail(std::string_view entry, const std::string& what) {
  throw Error(ErrorKind::Usage, fmt::format("allocation '{}'", entry), what);
}

// The number at the start of `text`, which it is cut from. `entry` is quoted in messages.
double take_number(std::string_view& text, std::string_view entry) {
  double number = 0;
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem == std::errc::invalid_argument)
    fail(entry, "has no number where an amount was expected");
  if (problem != std::errc() || !std::isfinite(number)) fail(entry, "is not a finite number");
  if (std::signbit(number)) fail(entry, "is negative");
  text = trim(text.substr(static_cast<std::size_t>(end - text.data())));
  return number;
}

// Bytes in one of the unit; 0 where there is no such unit.
double bytes_in(std::string_view unit) {
  auto name = lower(unit);
  if (name == "b") return 1;
  if (name.size() == 2 && name[1] == 'b') name.pop_back();
  if (name.size() == 3 && name.substr(1) == "ib") name.resize(1);
  const std::string_view letters = "kmgt";
  auto power = name.size() == 1 ? letters.find(name[0]) : std::string_view::npos;
  return power == std::string_view::npos ? 0 : std::pow(1024.0, static_cast<double>(power) + 1);
}

Share parse_amount(std::string_view text, std::string_view entry) {
  Share share;
  if (!text.empty() && text.back() == '*') {
    share.takes_rest = true;
    text = trim(text.substr(0, text.size() - 1));
    if (text.empty()) return share;
  }
  double number = take_number(text, entry);
  if (text.empty()) {
    share.unit = Unit::DeviceFraction;
    share.amount = number;
    if (number > 1)
      fail(entry,
           "a number without a unit is a share of the device's memory, 0 to 1; write % or gb");
  } else if (text == "%") {
    share.unit = Unit::ModelPercent;
    share.amount = number;
  } else {
    share.unit = Unit::Bytes;
    share.amount = number * bytes_in(text);
    if (bytes_in(text) == 0)
      fail(entry,
           fmt::format("unknown unit '{}'; expected b, k, m, g, t (with or without b) or %", text));
    if (share.amount >= 9e18) fail(entry, "is more bytes than can be counted");
  }
  if (share.takes_rest) share.amount = 0;
  return share;
}

}  // namespace

std::string normal_device(std::string_view name) {
  std::string_view text = trim(name);
  auto colon = text.find(':');
  auto kind = lower(text.substr(0, colon));
  bool letters = !kind.empty() &&
                 std::all_of(kind.begin(), kind.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  if (!letters)
    fail(name, kind.empty() ? "names no device" : "is not a device name such as cpu or cuda:0");
  bool single = kind == "cpu" || kind == "disk";
  int index = 0;
  if (colon != std::string_view::npos) {
    std::string_view digits = text.substr(colon + 1);
    auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    bool whole = problem == std::errc() && end == digits.data() + digits.size();
    if (!whole || index < 0 || index > kLargestIndex)
      fail(name, "is not a device name such as cpu or cuda:0");
    if (single && index != 0) fail(name, fmt::format("there is only one {}", kind));
  }
  return single ? kind : fmt::format("{}:{}", kind, index);
}

std::vector<Share> parse_allocation(std::string_view text) {
  std::vector<Share> shares;
  std::optional<Unit> unit;  // set by the first entry that has one
  std::string_view wildcard;
  for (std::string_view entry : split(text, ';')) {
    if (entry.empty()) continue;
    auto comma = entry.find(',');
    if (comma == std::string_view::npos) fail(entry, "expected 'device,amount'");
    if (trim(entry.substr(0, comma)).empty()) fail(entry, "names no device");
    std::string_view amount = trim(entry.substr(comma + 1));
    if (amount.empty()) fail(entry, "gives no amount");
    bool bare = amount == "*";
    Share share = parse_amount(amount, entry);
    share.device = normal_device(entry.substr(0, comma));
    if (share.takes_rest && !wildcard.empty())
      fail(entry, fmt::format("is a second '*' after '{}'", wildcard));
    if (share.takes_rest) wildcard = entry;
    for (const Share& other : shares) {
      if (other.device == share.device)
        fail(entry, fmt::format("names {} a second time", share.device));
    }
    if (!bare && unit && share.unit != *unit) fail(entry, "mixes units with the entries before it");
    if (!bare) unit = share.unit;
    shares.push_back(std::move(share));
  }
  for (Share& share : shares) share.unit = unit.value_or(Unit::Bytes);
  if (shares.empty())
    fail(trim(text), "is empty; expected 'device,amount' entries separated by ';'");
  return shares;
}

Allocation parse_full_allocation(std::string_view text) {
  Allocation allocation;
  auto hash = text.find('#');
  std::string_view expert = trim(text.substr(0, hash));
  if (!expert.empty()) allocation.shares = parse_allocation(expert);
  if (hash == std::string_view::npos) {
    if (expert.empty()) fail(text, "is empty");
    return allocation;
  }
  std::string_view rest = trim(text.substr(hash + 1));
  if (rest.find('#') != std::string_view::npos) fail(text, "has a second '#'");
  if (rest.empty()) return allocation;
  auto parts = split(rest, ';');
  if (parts.size() > 3) fail(rest, "expected COMPUTE;VIRTUAL_GB;DONOR1,DONOR2 after '#'");
  if (!parts[0].empty()) allocation.compute = normal_device(parts[0]);
  if (parts.size() > 1 && !parts[1].empty()) {
    std::string_view number = parts[1];
    allocation.virtual_bytes = take_number(number, rest) * GiB;
    if (!number.empty()) fail(rest, "VIRTUAL_GB is a plain number");
    if (allocation.virtual_bytes >= 9e18) fail(rest, "is more bytes than can be counted");
  }
  if (parts.size() > 2 && !parts[2].empty()) {
    for (std::string_view donor : split(parts[2], ',')) {
      std::string device = normal_device(donor);
      if (std::count(allocation.donors.begin(), allocation.donors.end(), device)) {
        fail(rest, fmt::format("names {} a second time", device));
      }
      allocation.donors.push_back(std::move(device));
    }
  }
  return allocation;
}

}  // namespace distorch::placement
