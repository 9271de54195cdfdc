#include "distorch/placement/allocation_string.h"

#include <doctest/doctest.h>

#include <random>

#include "distorch/base/error.h"
#include "distorch/base/units.h"

using namespace distorch;
using namespace distorch::placement;

TEST_CASE("allocation string: bytes, then the rest") {
  auto shares = parse_allocation("cuda:0,2.5gb;cpu,*");
  REQUIRE(shares.size() == 2);
  CHECK(shares[0] == Share{"cuda:0", Unit::Bytes, 2.5 * GiB, false});
  CHECK(shares[1] == Share{"cpu", Unit::Bytes, 0, true});
}

TEST_CASE("allocation string: every unit, with and without b, any case") {
  struct Case {
    const char* text;
    double bytes;
  };
  for (Case c : {Case{"500mb", 500 * MiB}, Case{"500M", 500 * MiB}, Case{"3.0g", 3 * GiB},
                 Case{"7k", 7 * KiB}, Case{"12b", 12}, Case{"1tb", 1024 * GiB},
                 Case{"2GiB", 2 * GiB}, Case{".5 gb", 0.5 * GiB}}) {
    CAPTURE(c.text);
    CHECK(parse_allocation(std::string("cpu,") + c.text)[0] ==
          Share{"cpu", Unit::Bytes, c.bytes, false});
  }
}

TEST_CASE("allocation string: ratio and fraction, order kept") {
  auto ratio = parse_allocation("cuda:1,8%;cuda:0,8%;cpu,4%");
  CHECK(ratio[0] == Share{"cuda:1", Unit::ModelPercent, 8, false});
  CHECK(ratio[1].device == "cuda:0");
  auto fraction = parse_allocation("cuda:0,0.2126;cpu,0.0851");
  CHECK(fraction[0] == Share{"cuda:0", Unit::DeviceFraction, 0.2126, false});
}

TEST_CASE("allocation string: a wildcard takes the unit of the others, its number is ignored") {
  CHECK(parse_allocation("cuda:0,500mb;cuda:1,3.0g;cpu,5gb*")[2] ==
        Share{"cpu", Unit::Bytes, 0, true});
  CHECK(parse_allocation("cpu,*;cuda:0,25%")[0] == Share{"cpu", Unit::ModelPercent, 0, true});
  CHECK(parse_allocation("cpu,*")[0].unit == Unit::Bytes);
}

TEST_CASE("allocation string: letters in a device name are not a unit") {
  CHECK(parse_allocation("mps:0,25%;cpu,75%")[0] == Share{"mps:0", Unit::ModelPercent, 25, false});
}

TEST_CASE("allocation string: names are normalised") {
  CHECK(normal_device("cuda") == "cuda:0");
  CHECK(normal_device(" CPU ") == "cpu");
  CHECK(normal_device("sim:1") == "sim:1");
  CHECK(normal_device("cpu:0") == "cpu");
  CHECK(parse_allocation(" cuda , 1gb ; ; disk , * ;")[0].device == "cuda:0");
}

TEST_CASE("allocation string: the message quotes the entry and says what was wrong") {
  CHECK_THROWS_WITH(parse_allocation("cuda:0,25%;cpu,2gb"),
                    "allocation 'cpu,2gb': mixes units with the entries before it");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,*;cpu,5gb*"),
                    "allocation 'cpu,5gb*': is a second '*' after 'cuda:0,*'");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,-1gb"), "allocation 'cuda:0,-1gb': is negative");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,nan"),
                    "allocation 'cuda:0,nan': is not a finite number");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,inf%"),
                    "allocation 'cuda:0,inf%': is not a finite number");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,1e999gb"),
                    "allocation 'cuda:0,1e999gb': is not a finite number");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,2xb"),
                    "allocation 'cuda:0,2xb': unknown unit 'xb'; expected b, k, m, g, t (with or "
                    "without b) or %");
  CHECK_THROWS_WITH(parse_allocation("cuda,1g;cuda:0,2g"),
                    "allocation 'cuda:0,2g': names cuda:0 a second time");
  CHECK_THROWS_WITH(parse_allocation(",2gb"), "allocation ',2gb': names no device");
  CHECK_THROWS_WITH(parse_allocation("cuda:0"), "allocation 'cuda:0': expected 'device,amount'");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,"), "allocation 'cuda:0,': gives no amount");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,gb"),
                    "allocation 'cuda:0,gb': has no number where an amount was expected");
  CHECK_THROWS_WITH(parse_allocation("cuda:0,25"),
                    "allocation 'cuda:0,25': a number without a unit is a share of the device's "
                    "memory, 0 to 1; write % or gb");
  CHECK_THROWS_WITH(parse_allocation("cuda:x,1gb"),
                    "allocation 'cuda:x': is not a device name such as cpu or cuda:0");
  CHECK_THROWS_WITH(parse_allocation("cpu:1,1gb"), "allocation 'cpu:1': there is only one cpu");
  CHECK_THROWS_WITH(parse_allocation(" ; "),
                    "allocation ';': is empty; expected 'device,amount' entries separated by ';'");
}

TEST_CASE("full allocation: both sides, either side") {
  auto both = parse_full_allocation("cuda:0,2gb;cpu,*#cuda:1;4.0;cpu");
  CHECK(both.shares.size() == 2);
  CHECK(both.compute == "cuda:1");
  CHECK(both.virtual_bytes == 4 * GiB);
  CHECK(both.donors == std::vector<std::string>{"cpu"});
  auto virtual_vram = parse_full_allocation("#cuda:0;8;cuda:1,cpu");
  CHECK(virtual_vram.shares.empty());
  CHECK(virtual_vram.donors == std::vector<std::string>{"cuda:1", "cpu"});
  CHECK(parse_full_allocation("cuda:0,50%;cpu,50%#").compute.empty());
  CHECK(parse_full_allocation("#") == Allocation{});
}

TEST_CASE("full allocation: faults") {
  CHECK_THROWS_WITH(
      parse_full_allocation("#cuda:0;4;cpu;more"),
      "allocation 'cuda:0;4;cpu;more': expected COMPUTE;VIRTUAL_GB;DONOR1,DONOR2 after '#'");
  CHECK_THROWS_WITH(parse_full_allocation("#cuda:0;-4;cpu"),
                    "allocation 'cuda:0;-4;cpu': is negative");
  CHECK_THROWS_WITH(parse_full_allocation("#cuda:0;4gb;cpu"),
                    "allocation 'cuda:0;4gb;cpu': VIRTUAL_GB is a plain number");
  CHECK_THROWS_WITH(parse_full_allocation("#cuda:0;4;cpu,cpu"),
                    "allocation 'cuda:0;4;cpu,cpu': names cpu a second time");
  CHECK_THROWS_WITH(parse_full_allocation("a#b#c"), doctest::Contains("'a'"));
  CHECK_THROWS_WITH(parse_full_allocation(""), "allocation '': is empty");
}

TEST_CASE("allocation string: noise is read or refused with Error(Usage), nothing else") {
  const std::string alphabet = "cudap:01259.,;*%#gmkb -+eEnaif";
  std::mt19937 random(7);
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = i % 2 ? "cuda:0,1gb;cpu,*#cuda:0;4;cpu" : "";
    for (int k = static_cast<int>(random() % 8); k > 0; --k) {
      text.insert(text.empty() ? 0 : random() % text.size(), 1,
                  alphabet[random() % alphabet.size()]);
    }
    try {
      auto allocation = parse_full_allocation(text);
      for (const Share& share : allocation.shares)
        CHECK(normal_device(share.device) == share.device);
      ++read;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Usage) FAIL(text);
    }
  }
  CHECK(read > 100);
}
