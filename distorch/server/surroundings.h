#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

/// What the server asks of the program around it. The server knows neither nodes nor devices; the
/// command line implements these classes (cli/server_surroundings.h). All are called from many
/// threads at once.
namespace distorch::server {

/// The folders whose files clients may see. They need not exist yet.
struct FileFolders {
  std::filesystem::path input;
  std::filesystem::path output;
  std::filesystem::path temp;
  /// Holds one folder a user, "default" for the only one.
  std::filesystem::path user;

  /// The folder that a client calls "input", "output" or "temp"; nullptr for another name.
  const std::filesystem::path* of_type(const std::string& type) const {
    if (type == "input") return &input;
    if (type == "output") return &output;
    if (type == "temp") return &temp;
    return nullptr;
  }
};

/// Where model files lie, by type ("checkpoints", "loras", ...).
class ModelPlaces {
 public:
  virtual ~ModelPlaces() = default;
  virtual std::vector<std::string> types() const = 0;
  /// In the order in which they are searched; empty for an unknown type.
  virtual std::vector<std::filesystem::path> folders(const std::string& type) const = 0;
  /// Endings that count as a file of the type, with the dot, sorted; none: every file.
  virtual std::vector<std::string> extensions(const std::string& type) const = 0;
  /// Names relative to their folder, sorted, each once.
  virtual std::vector<std::string> files(const std::string& type) const = 0;
  /// Nothing where no folder of the type holds it.
  virtual std::optional<std::filesystem::path> find(const std::string& type,
                                                    const std::string& name) const = 0;
};

/// One device that can compute. Bytes.
struct DeviceState {
  std::string name;          // for people: "cuda:0 NVIDIA H200"
  std::string type;          // "cuda", "cpu", "sim"
  std::optional<int> index;  // none for the CPU
  std::int64_t total = 0;
  std::int64_t free = 0;
  std::int64_t reserved = 0;       // held by this process's allocator
  std::int64_t reserved_free = 0;  // of these, in no use now
};

class Machine {
 public:
  virtual ~Machine() = default;
  /// Of the RAM, in bytes.
  virtual std::int64_t ram_total() const = 0;
  virtual std::int64_t ram_free() const = 0;
  /// The one that computes where a workflow names none first, then every other.
  virtual std::vector<DeviceState> devices() const = 0;
};

/// What the choices of node inputs depend on (model files, input pictures, devices).
class NodeChoices {
 public:
  virtual ~NodeChoices() = default;
  /// Another text whenever a choice list may have become another.
  virtual std::string state() const = 0;
};

}  // namespace distorch::server
