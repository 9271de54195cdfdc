// Runs tests/plans/*.plan: a request above the line, the placement (or the message) as text below
// it.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>

#include <fmt/format.h>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/plan.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

struct Request {
  System system;
  Model model;
  std::string string;
  std::string compute;
  bool automatic = false;
  Order order = Order::Spread;
};

std::vector<std::string> words(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> all;
  for (std::string word; in >> word;) all.push_back(word);
  return all;
}

std::string without_comma(std::string word) {
  if (!word.empty() && word.back() == ',') word.pop_back();
  return word;
}

// "4 blocks of 1gb", then any of: taking 50ms | runs 80ms on cuda:1 | pinned | sends 10mb
void read_model(const std::vector<std::string>& line, Request& request) {
  Block block{.bytes = parse_bytes(line.at(4)), .activation_bytes = 1 << 20};
  for (std::size_t k = 5; k < line.size(); ++k) {
    if (line[k] == "pinned") block.pinned = true;
    if (line[k] == "sends") block.activation_bytes = parse_bytes(line.at(k + 1));
    if (line[k] == "taking" || line[k] == "runs") {
      int device = line[k] == "taking" ? request.system.compute : request.system.at(line.at(k + 3));
      block.seconds.resize(
          std::max<std::size_t>(block.seconds.size(), static_cast<std::size_t>(device) + 1), -1);
      block.seconds[device] = std::stod(line.at(k + 1)) / 1000;
    }
  }
  for (int count = std::stoi(line.at(1)); count > 0; --count) {
    block.name = fmt::format("block.{}", request.model.blocks.size());
    request.model.blocks.push_back(block);
  }
}

Request read_request(const std::vector<std::string>& lines) {
  Request request;
  request.model.name = "model";
  for (const std::string& text : lines) {  // devices first, whatever the order in the file
    auto line = words(text);
    if (line.empty() || line[0] != "devices") continue;
    for (std::size_t k = 1; k + 1 < line.size(); k += 2) {
      auto bytes = parse_bytes(without_comma(line[k + 1]));
      request.system.devices.push_back({line[k], bytes, bytes});
    }
  }
  for (const std::string& text : lines) {
    auto line = words(text);
    if (line.empty() || line[0] == "#" || line[0] == "devices") continue;
    if (line[0] == "model")
      read_model(line, request);
    else if (line[0] == "link")
      request.system.links.push_back({line.at(1), line.at(2), std::stod(line.at(3)) * GB});
    else if (line[0] == "budget")
      request.system.devices[request.system.at(line.at(1))].budget_bytes = parse_bytes(line.at(2));
    else if (line[0] == "activations")
      request.model.activation_bytes = parse_bytes(line.at(1));
    else if (line[0] == "compute")
      request.system.compute = request.system.at(line.at(1));
    else if (line[0] == "order")
      request.order = line.at(1) == "tail" ? Order::Tail : Order::Spread;
    else if (line[0] == "string")
      request.string = line.at(1);
    else if (line[0] == "auto")
      request.automatic = true;
    else
      throw Error(ErrorKind::Usage, "plan file", "does not know '" + line[0] + "'");
  }
  return request;
}

std::string print(const Request& request, const Placement& placement) {
  std::string text;
  for (std::size_t d = 0; d < request.system.devices.size(); ++d) {
    for (bool runs : {false, true}) {
      std::string blocks;
      for (std::size_t i = 0; i < placement.blocks.size(); ++i) {
        const Home& home = placement.blocks[i];
        if (home.device == static_cast<int>(d) && (home.how == How::OnDonor) == runs)
          blocks += " " + request.model.blocks[i].name;
      }
      if (!blocks.empty())
        text += request.system.devices[d].name + (runs ? " runs" : "") + blocks + "\n";
    }
  }
  for (const RingSize& ring : placement.rings) {
    auto streams = std::count(placement.blocks.begin(), placement.blocks.end(),
                              Home{ring.device, How::Streamed});
    if (ring.slots != std::min<int>(2, static_cast<int>(streams))) {
      text += fmt::format("ring {} {} x {}\n", request.system.devices[ring.device].name, ring.slots,
                          human_bytes(static_cast<double>(ring.slot_bytes)));
    }
  }
  return text;
}

std::string answer(const Request& request) {
  try {
    if (request.automatic) return print(request, auto_plan(request.system, request.model));
    return print(request, plan(request.system, request.model, parse_full_allocation(request.string),
                               request.order));
  } catch (const Error& error) {
    return fmt::format("error {}: {}\n", name_of(error.kind()), error.what());
  }
}

// Runs of blanks count as one.
std::string squeezed(const std::string& text) {
  std::string result;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    std::string joined;
    for (const std::string& word : words(line)) joined += (joined.empty() ? "" : " ") + word;
    if (!joined.empty()) result += joined + "\n";
  }
  return result;
}

}  // namespace

TEST_CASE("tests/plans: every request gives the placement written below it") {
  int count = 0;
  std::vector<std::filesystem::path> files;
  for (auto& entry : std::filesystem::directory_iterator(test::source_dir() / "tests" / "plans")) {
    if (entry.path().extension() == ".plan") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    const std::string text = read_file(file);
    const auto bar = text.find("\n----\n");
    REQUIRE_MESSAGE(bar != std::string::npos, file.string() << ": no line of ----");
    std::vector<std::string> lines;
    std::istringstream in(text.substr(0, bar));
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    const std::string got = squeezed(answer(read_request(lines)));
    const std::string expected = squeezed(text.substr(bar + 6));
    CHECK_MESSAGE(got == expected, file.filename().string() << " gives\n" << got);
    ++count;
  }
  CHECK(count >= 20);
}
