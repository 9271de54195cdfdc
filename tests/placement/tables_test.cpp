#include "distorch/placement/tables.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "distorch/base/error.h"
#include "distorch/placement/plan.h"
#include "machines.h"

using namespace distorch;
using namespace distorch::placement;

TEST_CASE("tables: what a run logs, as text") {
  auto system = two_cards();
  auto model = even_model(4, gib(1), 0.1);
  model.blocks[3].type = "Head";
  auto placement = plan(system, model, parse_full_allocation("cuda:0,2gb;cpu,*"), Order::Tail);
  CHECK(tables(system, model, placement) ==
        R"(----------------------------------------------------------
                      Virtual memory                      
----------------------------------------------------------
Device      Role           Original      Total     Virtual
----------------------------------------------------------
cuda:0      recipient      24.00 GB   26.00 GB    +2.00 GB
cpu         donor          64.00 GB   62.00 GB    -2.00 GB
----------------------------------------------------------
                    Model allocations                     
----------------------------------------------------------
Device           VRAM GB       Share   Model GB     Dist %
----------------------------------------------------------
cuda:0             24.00       8.33%       2.00      50.0%
cpu                64.00       3.12%       2.00      50.0%
----------------------------------------------------------
                   Layers of the model                    
----------------------------------------------------------
Layer type                 Count             MB          %
----------------------------------------------------------
Block                          3        3072.00      75.0%
Head                           1        1024.00      25.0%
----------------------------------------------------------
                     Layers by device                     
----------------------------------------------------------
Device                    Layers             MB          %
----------------------------------------------------------
cuda:0                         2        2048.00      50.0%
cpu                            2        2048.00      50.0%
----------------------------------------------------------
v2 Expert String cuda:0,0.0833;cpu,0.0312
)");
}

TEST_CASE("summary: one line that names every device with weights") {
  auto system = two_cards();
  auto model = even_model(4, gib(1), 0.1);
  auto placement = plan(system, model, parse_full_allocation("cuda:0,4gb"), Order::Tail);
  CHECK(summary(system, model, placement) == "4.00 GiB in 4 blocks on cuda:0");
  placement = plan(system, model, parse_full_allocation("cuda:0,3gb;cpu,*"), Order::Tail);
  CHECK(summary(system, model, placement) ==
        "4.00 GiB in 4 blocks, computed on cuda:0, at rest 3.00 GiB on cuda:0, 1.00 GiB on cpu");
}

TEST_CASE("tables: the expert string gives the same placement again, within one block") {
  Random random(3);
  int checked = 0;
  for (int round = 0; round < 200; ++round) {
    CAPTURE(round);
    System system = random_system(random);
    for (Device& device : system.devices) device.budget_bytes = device.total_bytes;
    Model model = random_model(random, system);
    model.activation_bytes = 0;
    std::vector<Home> homes;
    std::int64_t largest = 0, total = model.bytes();
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
      largest = std::max(largest, model.blocks[i].bytes);
      int device = model.blocks[i].pinned || model.blocks[i].bytes < total / 10000
                       ? 0
                       : random.whole(0, static_cast<int>(system.devices.size()) - 1);
      homes.push_back({device, device == 0 ? How::Resident : How::Streamed});
    }
    auto placement = make_placement(system, model, homes);
    bool fits = true;
    for (std::size_t d = 0; d < system.devices.size(); ++d)
      fits = fits && placement.bytes[d] < system.devices[d].total_bytes * 9 / 10;
    if (!fits || placement.peak_bytes() > system.devices[0].budget_bytes * 8 / 10) continue;
    auto text = expert_string(system, model, placement);
    CAPTURE(text);
    Placement again;
    try {
      again = plan(system, model, parse_full_allocation(text));
    } catch (const Error& error) {  // two rings of the largest block may not fit beside it
      CHECK(error.kind() == ErrorKind::OutOfMemory);
      continue;
    }
    ++checked;
    for (std::size_t d = 0; d < system.devices.size(); ++d) {
      CHECK(std::abs(again.bytes[d] - placement.bytes[d]) <= largest);
    }
  }
  CHECK(checked > 50);
}
