#include "distorch/server/store.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>

#include "distorch/base/error.h"
#include "distorch/graph/json_text.h"

using namespace distorch;
using namespace distorch::server;

namespace {

namespace fs = std::filesystem;

/// A database in a folder of its own, which goes with this object.
struct Place {
  Place() {
    std::string name = (fs::temp_directory_path() / "distorch_store_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()));
    folder = name;
  }
  ~Place() { fs::remove_all(folder); }
  StoreOptions options() const { return {.file = folder / "jobs.sqlite"}; }
  fs::path folder;
};

Job job_of(const std::string& id, Json number = 0) {
  Job job;
  job.id = id;
  job.number = std::move(number);
  job.prompt = {{"1", {{"class_type", "Show"}, {"inputs", {{"x", 5}}}}}};
  job.extra_data = {{"client_id", "me"},
                    {"create_time", 1000},
                    {"extra_pnginfo", {{"workflow", {{"id", "w" + id}}}}}};
  job.outputs = {"1"};
  return job;
}

Outcome outcome_of(JobState state, std::int64_t began = 2000, std::int64_t ended = 2500) {
  const char* last = state == JobState::Completed ? "execution_success"
                     : state == JobState::Failed  ? "execution_error"
                                                  : "execution_interrupted";
  Outcome outcome;
  outcome.state = state;
  outcome.outputs = {{"1", {{"text", {"5"}}}}};
  outcome.meta = {{"1", {{"node_id", "1"}}}};
  outcome.messages.push_back(Json::array({"execution_start", {{"timestamp", began}}}));
  outcome.messages.push_back(Json::array({last, {{"timestamp", ended}}}));
  return outcome;
}

Json parsed(const std::string& text) { return graph::parse_json(text, "answer"); }

std::vector<std::string> keys_of(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

}  // namespace

TEST_CASE("store: what waits is there after a restart, what ended is history") {
  Place place;
  {
    Store store(place.options());
    REQUIRE(store.problem() == "");
    CHECK(store.restore().empty());
    auto a = job_of("a"), b = job_of("b", 1.5), c = job_of("c", -3);
    for (auto* job : {&a, &b, &c}) store.accept(*job);
    store.begin(a);
    store.finish(a, outcome_of(JobState::Completed));
    store.remove({"c"});
  }
  Store store(place.options());
  REQUIRE(store.problem() == "");
  auto waiting = store.restore();
  REQUIRE(waiting.size() == 1);
  CHECK(waiting[0].id == "b");
  CHECK(waiting[0].number.dump() == "1.5");
  CHECK(waiting[0].prompt == job_of("b").prompt);
  CHECK(waiting[0].client() == "me");
  CHECK(waiting[0].outputs == std::vector<std::string>{"1"});
  CHECK(waiting[0].restored);
  CHECK(parsed(store.history({}, {})).dump() ==
        R"({"a":{"prompt":[0,"a",{"1":{"class_type":"Show","inputs":{"x":5}}},{"client_id":"me",)"
        R"("create_time":1000,"extra_pnginfo":{"workflow":{"id":"wa"}}},["1"]],)"
        R"("outputs":{"1":{"text":["5"]}},"status":{"status_str":"success","completed":true,)"
        R"("messages":[["execution_start",{"timestamp":2000}],)"
        R"(["execution_success",{"timestamp":2500}]]},"meta":{"1":{"node_id":"1"}}}})");
}

TEST_CASE("store: a prompt that was running runs again at most twice") {
  Place place;
  for (int process = 1; process <= 3; ++process) {
    Store store(place.options());
    if (process == 1) store.accept(job_of("a"));
    auto waiting = process == 1 ? std::vector{job_of("a")} : store.restore();
    REQUIRE(waiting.size() == 1);
    store.begin(waiting[0]);
    CHECK(waiting[0].begun == process);
  }
  Store store(place.options());
  CHECK(store.restore().empty());
  auto entry = parsed(store.history("a"))["a"];
  CHECK(entry["status"]["status_str"] == "error");
  auto error = entry["status"]["messages"][0];
  CHECK(error[0] == "execution_error");
  CHECK(error[1]["exception_type"] == "ServerStopped");
  CHECK(error[1]["exception_message"] ==
        "The server ended 3 times while it ran this prompt, so it is not tried again.\n");
}

TEST_CASE("store: a prompt put back by a stop was not begun") {
  Place place;
  for (int process = 1; process <= 5; ++process) {
    Store store(place.options());
    if (process == 1) store.accept(job_of("a"));
    auto waiting = store.restore();
    REQUIRE(waiting.size() == 1);
    store.begin(waiting[0]);
    store.put_back(waiting[0]);
  }
}

TEST_CASE("store: history by pieces, forgotten, bounded") {
  Place place;
  auto options = place.options();
  options.history_limit = 5;
  Store store(options);
  for (const char* id : {"a", "b", "c", "d", "e", "f"}) {
    auto job = job_of(id);
    store.accept(job);
    store.finish(job, outcome_of(JobState::Completed));
  }
  using Keys = std::vector<std::string>;
  CHECK(keys_of(parsed(store.history({}, {}))) == Keys{"b", "c", "d", "e", "f"});
  CHECK(keys_of(parsed(store.history(2, {}))) == Keys{"e", "f"});
  CHECK(keys_of(parsed(store.history(2, 1))) == Keys{"c", "d"});
  CHECK(keys_of(parsed(store.history({}, 3))) == Keys{"e", "f"});
  CHECK(store.history("nobody") == "{}");
  store.forget({"c", "nobody"});
  CHECK(keys_of(parsed(store.history({}, {}))) == Keys{"b", "d", "e", "f"});
  // The same id once more: the newest counts, at the end.
  auto again = job_of("b");
  store.accept(again);
  CHECK(store.history("b") == "{}");
  store.finish(again, outcome_of(JobState::Failed));
  CHECK(keys_of(parsed(store.history({}, {}))) == Keys{"d", "e", "f", "b"});
  store.forget_all();
  CHECK(store.history({}, {}) == "{}");
}

TEST_CASE("store: lists of jobs") {
  Place place;
  Store store(place.options());
  auto add = [&](const std::string& id, std::int64_t created, std::optional<Outcome> outcome) {
    auto job = job_of(id);
    job.extra_data["create_time"] = created;
    store.accept(job);
    if (outcome) store.finish(job, *outcome);
    return job;
  };
  add("a", 10, outcome_of(JobState::Completed, 100, 900));
  add("b", 20, outcome_of(JobState::Failed, 100, 200));
  add("c", 30, outcome_of(JobState::Cancelled, 100, 400));
  auto d = add("d", 40, {});
  add("e", 50, {});
  store.begin(d);
  auto ids = [&](const JobQuery& query) {
    std::string text;
    auto jobs = parsed(store.list(query).jobs);
    for (const auto& job : jobs)
      text += job["id"].get<std::string>() + ":" + job["status"].get<std::string>() + " ";
    return text;
  };
  CHECK(ids({}) == "e:pending d:in_progress c:cancelled b:failed a:completed ");
  CHECK(ids({.states = {JobState::Pending, JobState::Failed}}) == "e:pending b:failed ");
  CHECK(ids({.workflow_id = "wc"}) == "c:cancelled ");
  CHECK(ids({.states = {JobState::Completed, JobState::Failed, JobState::Cancelled},
             .by_duration = true,
             .ascending = true}) == "b:failed c:cancelled a:completed ");
  JobQuery part{.offset = 1, .limit = 2};
  CHECK(ids(part) == "d:in_progress c:cancelled ");
  CHECK(store.list(part).total == 5);
  CHECK(store.list(part).count == 2);
  auto first = parsed(store.list({.states = {JobState::Completed}}).jobs)[0];
  CHECK(first["execution_start_time"] == 100);
  CHECK(first["execution_end_time"] == 900);
  CHECK(first["workflow_id"] == "wa");
  auto details = store.details("a");
  CHECK(details["outputs"].dump() == R"({"1":{"text":["5"]}})");
  CHECK(details["workflow"]["extra_data"]["create_time"] == 10);
  CHECK(details["execution_status"]["completed"] == true);
  CHECK(store.details("d").is_null());
}

TEST_CASE("store: a file that cannot be used is left alone, and all goes on in memory") {
  Place place;
  auto options = place.options();
  auto works = [](Store& store) {
    auto job = job_of("a");
    store.accept(job);
    store.begin(job);
    store.finish(job, outcome_of(JobState::Completed));
    return store.history("a").size() > 10;
  };
  SUBCASE("damaged") {
    std::ofstream(options.file) << std::string(5000, 'x');
    Store store(options);
    CHECK(store.problem().find("jobs.sqlite: is damaged") != std::string::npos);
    CHECK(works(store));
    CHECK(fs::file_size(options.file) == 5000);
  }
  SUBCASE("in use by another store") {
    Store first(options);
    Store second(options);
    CHECK(first.problem() == "");
    CHECK(second.problem().find("is in use by another process") != std::string::npos);
    CHECK(works(second));
    CHECK(first.history("a") == "{}");
  }
  SUBCASE("no place for a file") {
    options.file = "/proc/distorch/jobs.sqlite";
    Store store(options);
    CHECK(store.problem().find("cannot be written") != std::string::npos);
    CHECK(works(store));
  }
  SUBCASE("of a newer distorch") {
    Database::open(options.file).run("PRAGMA user_version=99");
    Store store(options);
    CHECK(store.problem().find("newer distorch (schema 99, this one knows 1)") !=
          std::string::npos);
    CHECK(works(store));
  }
}

TEST_CASE("store: what is found to be damaged later is said, and all goes on in memory") {
  Place place;
  auto options = place.options();
  {
    Store store(options);
    for (int i = 0; i < 200; ++i) {
      auto job = job_of(std::to_string(i));
      job.extra_data["note"] = std::string(2000, 'x');
      store.accept(job);
      if (i >= 100) store.finish(job, outcome_of(JobState::Completed));
    }
  }
  const auto size = fs::file_size(options.file);
  SUBCASE("pages") {
    std::fstream file(options.file, std::ios::in | std::ios::out | std::ios::binary);
    for (std::uintmax_t page = 2 * 4096; page + 4096 <= size; page += 4096) {
      file.seekp(static_cast<std::streamoff>(page));
      file << std::string(4096, '\xa5');
    }
    file.close();
    Store store(options);
    store.restore();
    store.history({}, {});
    store.history("5");
    store.list({});
    CHECK(store.details("150").is_null());
    CHECK_MESSAGE(store.problem().find("is damaged") != std::string::npos, store.problem());
    auto job = job_of("new");
    store.accept(job);
    store.begin(job);
    store.finish(job, outcome_of(JobState::Completed));
    CHECK(store.has_ended("new"));
    CHECK(fs::file_size(options.file) == size);
  }
  SUBCASE("one prompt") {
    Database::open(options.file).run("UPDATE jobs SET prompt='{' WHERE id='7'");
    Store store(options);
    CHECK(store.restore().size() == 99);
    CHECK(store.problem() == "");
    CHECK(store.history("7").find("cannot be read any more") != std::string::npos);
  }
}

TEST_CASE("store: a disk that fills up later does not lose what is there") {
  Place place;
  Store store(place.options());
  auto before = job_of("before");
  store.accept(before);
  store.finish(before, outcome_of(JobState::Completed));
  // No file of this process may grow: every write fails from here on.
  struct sigaction ignore = {}, old = {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGXFSZ, &ignore, &old);
  struct rlimit limit = {}, none = {};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  none = limit;
  none.rlim_cur = 0;
  ::setrlimit(RLIMIT_FSIZE, &none);
  auto after = job_of("after");
  store.accept(after);
  store.finish(after, outcome_of(JobState::Completed));
  ::setrlimit(RLIMIT_FSIZE, &limit);
  ::sigaction(SIGXFSZ, &old, nullptr);
  CHECK(store.problem() != "");
  CHECK(keys_of(parsed(store.history({}, {}))) == std::vector<std::string>{"before", "after"});
}

namespace {

/// Accepts, begins and finishes prompts for ever; says over `pipe` what it has been told is kept.
[[noreturn]] void live_until_killed(const StoreOptions& options, int pipe, int round) {
  Store store(options);
  auto waiting = store.restore();
  auto say = [&](char what, const std::string& id) {
    auto line = what + id + "\n";
    if (::write(pipe, line.data(), line.size()) < 0) ::_exit(1);
  };
  for (int i = 0;; ++i) {
    auto job = job_of(std::to_string(round) + "_" + std::to_string(i));
    store.accept(job);
    say('+', job.id);
    waiting.push_back(job);
    if (i % 2) continue;
    auto first = waiting.front();
    waiting.erase(waiting.begin());
    store.begin(first);
    store.finish(first, outcome_of(JobState::Completed));
    say('-', first.id);
  }
}

std::string read_all(int pipe) {
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = ::read(pipe, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(count));
  return text;
}

}  // namespace

TEST_CASE("store: kill -9 at any moment loses nothing that was accepted or finished") {
  Place place;
  std::mt19937 random(7);
  std::set<std::string> accepted, finished;
  for (int round = 0; round < 20; ++round) {
    int pipe[2];
    REQUIRE(::pipe(pipe) == 0);
    auto child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) live_until_killed(place.options(), pipe[1], round);
    ::close(pipe[1]);
    ::usleep(std::uniform_int_distribution<unsigned>(20000, 150000)(random));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    std::istringstream lines(read_all(pipe[0]));
    ::close(pipe[0]);
    for (std::string line; std::getline(lines, line);)
      (line[0] == '+' ? accepted : finished).insert(line.substr(1));
  }
  CHECK(accepted.size() > 10);
  Store store(place.options());
  REQUIRE(store.problem() == "");
  std::set<std::string> there;
  for (const auto& job : store.restore()) there.insert(job.id);
  auto history = parsed(store.history({}, {}));
  for (const auto& id : finished) CHECK(history.contains(id));
  for (const auto& id : accepted) CHECK((there.count(id) == 1) != history.contains(id));
}
