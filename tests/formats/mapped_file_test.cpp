#include "distorch/formats/mapped_file.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/formats/fault_guard.h"

using namespace distorch;
using namespace distorch::formats;

namespace {

constexpr std::size_t size = 1 << 20;

/// A file of its own for each test, 1 MiB in which byte i is i mod 251.
struct File {
  std::filesystem::path path;
  File() {
    static int count = 0;
    path = std::filesystem::temp_directory_path() /
           ("distorch_map_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i % 251);
    write_file(path, bytes);
  }
  ~File() { std::filesystem::remove(path); }
  void cut(std::size_t to) const { std::filesystem::resize_file(path, to); }
  /// The same file (inode) with its content, and this time of modification.
  void restore(std::filesystem::file_time_type time) const {
    {
      std::ofstream out(path, std::ios::binary);
      for (std::size_t i = 0; i < size; ++i) out.put(static_cast<char>(i % 251));
    }
    std::filesystem::last_write_time(path, time);
  }
};

std::string sentence_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.sentence();
  }
  return "no error";
}

const char* const unreadable =
    "could not be read (the disk or the network failed); the next use tries again";

std::size_t sum(std::span<const std::byte> bytes) {
  std::size_t total = 0;
  for (auto b : bytes) total += static_cast<unsigned char>(b);
  return total;
}

}  // namespace

TEST_CASE("mapped file: bytes, ranges and the cache by identity") {
  File file;
  auto a = MappedFile::open(file.path);
  CHECK(a->size() == size);
  CHECK(static_cast<int>(a->bytes()[300]) == 300 % 251);
  CHECK(MappedFile::open(file.path) == a);
  auto link = file.path.string() + ".link";
  std::filesystem::create_symlink(file.path, link);
  CHECK(MappedFile::open(link) == a);
  std::filesystem::remove(link);
  CHECK(a->bytes({10, 20}).size() == 20);
  CHECK_THROWS_AS(a->bytes({size, 1}), Error);
  CHECK_THROWS_AS(a->bytes({1, ~std::size_t{0}}), Error);
  std::vector<std::byte> copy(1000);
  a->read(500, copy);
  CHECK(std::memcmp(copy.data(), a->bytes().data() + 500, copy.size()) == 0);
  a->probe({0, size});
  a->check();
  CHECK(a->is_current());

  std::weak_ptr<const MappedFile> gone = a;
  a.reset();
  CHECK(gone.expired());
}

TEST_CASE("mapped file: an empty file and things that are no files") {
  File file;
  file.cut(0);
  auto empty = MappedFile::open(file.path);
  CHECK(empty->bytes().empty());
  empty->probe({0, 0});
  empty->will_need({0, 10});
  CHECK(empty->resident_bytes({0, 10}) == 0);
  CHECK_THROWS_AS(empty->read(0, std::span<std::byte>(reinterpret_cast<std::byte*>(&file), 1)),
                  Error);
  CHECK_THROWS_AS(MappedFile::open("/dev/null"), Error);
  CHECK_THROWS_AS(MappedFile::open("/no/such/file"), Error);
}

TEST_CASE("mapped file: pages can be given back and are counted") {
  File file;
  auto map = MappedFile::open(file.path);
  map->sequential({0, size});
  map->will_need({0, size});
  map->probe({0, size});
  CHECK(map->resident_bytes({0, size}) == size);
  CHECK(map->resident_bytes({100, 1000}) == 1000);
  auto before = sum(map->bytes());
  map->dont_need({5000, 100000});
  CHECK(sum(map->bytes()) == before);
  ::sync();
  map->evict({0, size});
  CHECK(map->resident_bytes({0, size}) <= size);  // a hint: tmpfs keeps its pages
  CHECK(sum(map->bytes()) == before);
}

TEST_CASE("mapped file: reading beyond a cut is an error, not a signal") {
  File file;
  auto map = MappedFile::open(file.path);
  file.cut(8192);
  std::vector<std::byte> copy(10000);
  map->read(0, std::span(copy).first(8192));  // still there
  CHECK_FALSE(map->unchanged());
  try {
    map->read(0, copy);
    FAIL("read bytes that are gone");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::Format);
    CHECK(e.where() == file.path.string());
    CHECK(e.sentence() == "was truncated or replaced while in use (1048576 bytes then, 8192 now)");
  }
  CHECK_THROWS_AS(map->probe({0, size}), Error);
  CHECK_THROWS_AS(map->check(), Error);
}

TEST_CASE("mapped file: probe also works by touching") {
  // The older way, taken where the kernel lacks MADV_POPULATE_READ, is the one that read() shares.
  File file;
  auto map = MappedFile::open(file.path);
  map->probe({4096, 8192});
  file.cut(4096);
  map->probe({0, 4096});
  CHECK_THROWS_AS(map->probe({4096, 1}), Error);
}

TEST_CASE("mapped file: bytes used in place read as zeros after a cut, and check() says so") {
  File file;
  auto map = MappedFile::open(file.path);
  auto other = File();
  auto untouched = MappedFile::open(other.path);
  file.cut(8192);
  CHECK(sum(map->bytes().subspan(8192)) == 0);
  CHECK(static_cast<int>(map->bytes()[300]) == 300 % 251);  // what is left is left
  CHECK_THROWS_WITH_AS(map->check(),
                       (file.path.string() +
                        ": was truncated or replaced while in use (1048576 bytes then, 8192 now)")
                           .c_str(),
                       Error);
  // Even after the file has its old size and content again: this mapping holds zeros.
  {
    std::ofstream out(file.path, std::ios::binary);
    out << read_file(other.path);
  }
  CHECK_THROWS_AS(map->check(), Error);
  // A new mapping is whole, and other files are not concerned.
  auto again = MappedFile::open(file.path);
  CHECK(again != map);
  CHECK(sum(again->bytes()) == sum(untouched->bytes()));
  again->check();
  untouched->check();
}

// Pages that are gone for a while look the same however they went: here a cut that is undone, with
// size and time as they were, stands for a disk that failed.
TEST_CASE("mapped file: after an I/O error the next use has the bytes again") {
  File file;
  auto map = MappedFile::open(file.path);
  auto whole = sum(map->bytes());
  auto time = std::filesystem::last_write_time(file.path);
  file.cut(8192);
  CHECK(sum(map->bytes().subspan(8192)) == 0);
  file.restore(time);
  // What was lost in place stays lost until the next use: the result is not to be believed.
  CHECK(sentence_of([&] { map->check(); }) == unreadable);
  std::vector<std::byte> copy(size);
  CHECK(sentence_of([&] { map->read(0, copy); }) == unreadable);
  CHECK(sentence_of([&] { map->probe({0, size}); }) == unreadable);
  map->read(0, std::span(copy).first(8192));
  CHECK_FALSE(map->is_current());

  map->refresh();
  map->check();
  CHECK(map->is_current());
  CHECK(sum(map->bytes()) == whole);
  map->read(0, copy);
  CHECK(sum(copy) == whole);
  map->probe({0, size});
  CHECK(MappedFile::open(file.path) == map);
}

TEST_CASE("mapped file: a read that failed leaves nothing behind") {
  File file;
  auto map = MappedFile::open(file.path);
  auto whole = sum(map->bytes());
  auto time = std::filesystem::last_write_time(file.path);
  file.cut(8192);
  std::vector<std::byte> copy(size);
  CHECK_THROWS_AS(map->read(0, copy), Error);
  CHECK_THROWS_AS(map->probe({0, size}), Error);
  file.restore(time);
  map->read(0, copy);
  CHECK(sum(copy) == whole);
  map->check();
  map->refresh();  // nothing to do
  CHECK(sum(map->bytes()) == whole);
}

TEST_CASE("mapped file: pages may be lost and come back again and again") {
  File file;
  auto map = MappedFile::open(file.path);
  auto whole = sum(map->bytes());
  auto time = std::filesystem::last_write_time(file.path);
  for (std::size_t left : {65536, 4096, 262144}) {
    file.cut(left);
    CHECK(sum(map->bytes()) < whole);
    map->refresh();  // too short: the zeros stay, and so does the error
    CHECK(sentence_of([&] { map->check(); }).find("was truncated or replaced") == 0);
    file.restore(time);
    map->refresh();
    map->check();
    CHECK(sum(map->bytes()) == whole);
  }
}

TEST_CASE("mapped file: a touched file is the same in a run and another one for the next") {
  File file;
  auto map = MappedFile::open(file.path);
  auto later = std::filesystem::last_write_time(file.path) + std::chrono::seconds(5);
  std::filesystem::last_write_time(file.path, later);
  map->check();
  CHECK(map->unchanged());
  CHECK_FALSE(map->is_current());
  CHECK(MappedFile::open(file.path) != map);
  // The same content written anew, in place, is no change either.
  file.restore(later + std::chrono::seconds(5));
  map->check();
}

TEST_CASE("mapped file: other weights behind the same header are noticed") {
  File file;
  auto map = MappedFile::open(file.path);
  auto time = std::filesystem::last_write_time(file.path);
  {
    std::fstream out(file.path, std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(100'000);
    out << std::string(size - 100'000, 'w');
  }
  std::filesystem::last_write_time(file.path, time + std::chrono::seconds(1));
  CHECK(sentence_of([&] { map->check(); }) == "was truncated or replaced while in use");
}

TEST_CASE("mapped file: the fault handler never takes one mapping's begin and another's end") {
  auto low = std::uintptr_t{1} << 40, high = low + (1 << 20);
  auto* row = watch_faults(reinterpret_cast<void*>(low), 4096);
  CHECK(watched_place(low + 100).watch == row);
  CHECK(watched_place(low + 100).end == low + 4096);
  // What a handler sees that interrupts the change from the lower mapping to the higher one: taken
  // together the numbers claim the gap between them.
  row->generation.fetch_add(1);
  row->end.store(high + 4096);
  CHECK(watched_place(low + 8192).watch == nullptr);
  row->begin.store(high);
  row->generation.fetch_add(1);
  CHECK(watched_place(low + 100).watch == nullptr);
  CHECK(watched_place(high + 100).watch == row);
  // The same with a thread that changes the row all the time.
  std::atomic<bool> done{false};
  std::size_t wrong = 0;
  std::thread reader([&] {
    while (!done.load(std::memory_order_relaxed))
      if (watched_place(low + 8192).watch != nullptr) ++wrong;
  });
  for (int i = 0; i < 20'000; ++i) {
    unwatch_faults(row);
    row = watch_faults(reinterpret_cast<void*>(i % 2 == 0 ? high : low), 4096);
  }
  done.store(true);
  reader.join();
  CHECK(wrong == 0);
  unwatch_faults(row);
  CHECK(watched_place(low + 100).watch == nullptr);
}

TEST_CASE("mapped file: faults of several threads at once") {
  File file;
  auto map = MappedFile::open(file.path);
  file.cut(4096);
  std::atomic<int> thrown{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      std::vector<std::byte> copy(size);
      for (int k = 0; k < 20; ++k) {
        try {
          map->read(0, copy);
        } catch (const Error&) {
          thrown.fetch_add(1);
        }
      }
      if (sum(map->bytes().subspan(8192)) != 0) thrown.store(-1000);
    });
  for (auto& t : threads) t.join();
  // once one thread has put zeros there, the copies of the others succeed
  CHECK(thrown.load() >= 1);
  CHECK_THROWS_AS(map->check(), Error);
}

TEST_CASE("mapped file: a file replaced by rename keeps its content here") {
  File file;
  auto map = MappedFile::open(file.path);
  write_file(file.path, "new");
  CHECK(sum(map->bytes()) > 0);
  map->check();
  CHECK_FALSE(map->is_current());
  auto now = MappedFile::open(file.path);
  CHECK(now->size() == 3);
  CHECK(now->is_current());
}

TEST_CASE("mapped file: a change in place is noticed") {
  File file;
  auto map = MappedFile::open(file.path);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  {
    std::fstream out(file.path, std::ios::in | std::ios::out | std::ios::binary);
    out << "xyz";
  }
  CHECK_THROWS_WITH_AS(map->check(),
                       (file.path.string() + ": was truncated or replaced while in use").c_str(),
                       Error);
}

TEST_CASE("mapped file: a bus error elsewhere still ends the process") {
  File file;
  auto map = MappedFile::open(file.path);  // the handler is in place
  auto child = ::fork();
  if (child == 0) {
    ::signal(SIGABRT, SIG_DFL);
    std::raise(SIGBUS);
    std::raise(SIGBUS);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  CHECK(status != 0);  // killed by the signal; under a sanitizer its own handler reports and exits
}
