#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace distorch::sim {

/// How far each stream had come: entry s counts the operations of stream s. Missing entries are 0.
using Clock = std::vector<std::uint64_t>;
void join(Clock& into, const Clock& other);

/// Happens-before over streams and the host, by vector clocks. Work issued by the host comes after
/// all that the host has waited for; events carry the clock of the stream that recorded them. Knows
/// nothing of time or tensors.
class Order {
 public:
  void add_stream();
  /// A new operation on the stream: its number.
  std::uint64_t tick(int stream);
  /// Clock of all that is issued on the stream so far.
  const Clock& clock(int stream);
  void stream_waits(int stream, const Clock& event) { join(streams_[stream], event); }
  void host_waits(const Clock& event);
  void host_waits_for_all();

  /// Is operation `number` of `other` over before the next operation of `stream` begins?
  bool before(int other, std::uint64_t number, int stream);
  bool before_host(int other, std::uint64_t number) const;

 private:
  void refresh(int stream);

  std::vector<Clock> streams_;
  std::vector<std::uint64_t> seen_host_;  // version of host_ that the stream has joined
  Clock host_;
  std::uint64_t host_version_ = 0;
};

/// One use of bytes [begin, end) of a storage.
struct Access {
  std::int64_t begin, end;
  int stream;
  std::uint64_t number;
  const std::string* what = nullptr;  // operation and place, for the message; interned
};

/// The uses of one storage that a later use may have to be ordered after.
class AccessLog {
 public:
  /// The earlier use that this one conflicts with and is not ordered after: a write, or any use
  /// when this one writes.
  std::optional<Access> conflict(Order& order, const Access& use, bool writes) const;
  void note(Order& order, const Access& use, bool writes);
  /// A use that the stream may overtake, if it is given the memory now; uses on streams in
  /// `allowed` do not count.
  std::optional<Access> open_use(Order& order, int stream, const std::vector<int>& allowed) const;
  /// A use of [begin, end) that the host has not waited for; reads count only where the host
  /// `writes`.
  std::optional<Access> open_for_host(const Order& order, std::int64_t begin, std::int64_t end,
                                      bool writes) const;
  /// What wrote last; null when nothing did.
  const std::string* last_writer() const;

 private:
  std::vector<Access> writes_, reads_;
};

}  // namespace distorch::sim
