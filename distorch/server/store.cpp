#include "distorch/server/store.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/graph/json_text.h"

namespace distorch::server {

using graph::json_line;

namespace {

constexpr int kSchema = 1;

/// `ended` counts the ended prompts in their order and is NULL for others. What /history and
/// /api/jobs answer is kept as text, so that a list is read without parsing.
constexpr const char* kTables = R"(
CREATE TABLE IF NOT EXISTS jobs(
  id TEXT PRIMARY KEY,
  state INTEGER NOT NULL,
  number TEXT NOT NULL,
  prompt TEXT NOT NULL,
  extra_data TEXT NOT NULL,
  targets TEXT NOT NULL,
  workflow_id TEXT NOT NULL,
  created INTEGER NOT NULL,
  begun INTEGER NOT NULL DEFAULT 0,
  ended INTEGER,
  duration INTEGER NOT NULL DEFAULT 0,
  outputs TEXT NOT NULL DEFAULT '{}',
  meta TEXT NOT NULL DEFAULT '{}',
  status TEXT NOT NULL DEFAULT 'null',
  entry TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_ended ON jobs(ended) WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_state ON jobs(state, workflow_id);
CREATE INDEX IF NOT EXISTS jobs_created ON jobs(created, state, workflow_id);
)";

constexpr const char* kEntry =
    "SELECT id, number, prompt, extra_data, targets, outputs, status, "
    "meta FROM jobs WHERE ended IS NOT NULL";

std::string quoted(const std::string& text) { return json_line(Json(text)); }

/// "id": entry, of a row of kEntry.
std::string history_entry(const Statement& row) {
  auto id = quoted(row.text(0));
  return fmt::format(R"({}:{{"prompt":[{},{},{},{},{}],"outputs":{},"status":{},"meta":{}}})", id,
                     row.text(1), id, row.text(2), row.text(3), row.text(4), row.text(5),
                     row.text(6), row.text(7));
}

std::string history_object(Statement& rows) {
  std::string text = "{";
  while (rows.step()) {
    if (text.size() > 1) text += ',';
    text += history_entry(rows);
  }
  return text + "}";
}

Json json_in(const Statement& row, int column, const std::string& where) {
  return graph::parse_json(row.text(column), where);
}

std::int64_t number_of(JobState state) { return static_cast<std::int64_t>(state); }

}  // namespace

Store::Store(StoreOptions options)
    : options_(std::move(options)), database_(Database::in_memory()) {
  try {
    database_ = Database::open(options_.file);
    set_up();
  } catch (const Error& error) {
    database_ = Database::in_memory();
    set_up();
    problem_ = error.what();
    log::error(
        "{}: the queue and the history are kept in memory and will be gone with this process",
        problem_);
  }
}

void Store::set_up() const {
  database_.make_tables(kTables, kSchema);
  database_.prepare("SELECT count(*), max(created), max(ended) FROM jobs").run();
}

std::string Store::problem() const {
  std::lock_guard lock(mutex_);
  return problem_;
}

void Store::go_on_in_memory(const std::string& reason) const {
  problem_ = reason;
  log::error("{}: the queue and the history are kept in memory from now on", problem_);
  database_ = copy_in_memory(database_, "the history is lost");
  set_up();
}

void Store::write(const std::function<void()>& work) {
  auto whole = [&] {
    Transaction transaction(database_);
    work();
    transaction.commit();
  };
  try {
    whole();
  } catch (const Error& error) {
    if (!problem_.empty() || error.kind() == ErrorKind::Internal) throw;
    go_on_in_memory(error.what());
    whole();
  }
}

void Store::read(const std::function<void()>& work) const {
  try {
    work();
  } catch (const Error& error) {
    if (!problem_.empty() || error.kind() == ErrorKind::Internal) throw;
    go_on_in_memory(error.what());
    work();
  }
}

std::vector<Store::Unfinished> Store::unfinished() const {
  std::vector<Unfinished> jobs;
  auto rows = database_.prepare(
      "SELECT id, number, prompt, extra_data, targets, begun, state FROM jobs WHERE ended IS NULL");
  while (rows.step()) {
    auto& [job, fault] = jobs.emplace_back();
    job.id = rows.text(0);
    job.begun = static_cast<int>(rows.number(5));
    job.restored = true;
    try {
      Job whole = job;
      whole.number = json_in(rows, 1, database_.where());
      whole.number.get<double>();
      whole.prompt = json_in(rows, 2, database_.where());
      whole.extra_data = json_in(rows, 3, database_.where());
      whole.outputs = json_in(rows, 4, database_.where()).get<std::vector<std::string>>();
      job = std::move(whole);
    } catch (const std::exception& error) {
      fault = fmt::format("It cannot be read any more: {}", error.what());
    }
  }
  return jobs;
}

std::vector<Job> Store::restore() {
  std::lock_guard lock(mutex_);
  std::vector<Unfinished> all, given_up;
  read([&] { all = unfinished(); });
  std::vector<Job> waiting;
  for (auto& [job, fault] : all) {
    if (fault.empty() && job.begun >= options_.most_begun)
      fault = fmt::format(
          "The server ended {} times while it ran this prompt, so it is not tried again.",
          job.begun);
    if (fault.empty())
      waiting.push_back(std::move(job));
    else
      given_up.push_back({std::move(job), std::move(fault)});
  }
  if (all.empty()) return waiting;
  write([&] {
    for (const auto& job : waiting) put(job, JobState::Pending);
    for (const auto& [job, fault] : given_up) {
      log::error("prompt {}: {}", job.id, fault);
      put_end(job, failure(job, "ServerStopped", fault));
    }
  });
  return waiting;
}

void Store::put(const Job& job, JobState state) {
  database_
      .prepare(
          "INSERT OR REPLACE INTO jobs(id, state, number, prompt, extra_data, targets, "
          "workflow_id, created, begun, entry) VALUES(?,?,?,?,?,?,?,?,?,?)")
      .bind(job.id)
      .bind(number_of(state))
      .bind(json_line(job.number))
      .bind(json_line(job.prompt))
      .bind(json_line(job.extra_data))
      .bind(json_line(Json(job.outputs)))
      .bind(job.workflow_id())
      .bind(job.created_ms())
      .bind(job.begun)
      .bind(json_line(job_entry(job, state)))
      .run();
}

void Store::accept(const Job& job) {
  std::lock_guard lock(mutex_);
  write([&] { put(job, JobState::Pending); });
}

void Store::begin(Job& job) {
  std::lock_guard lock(mutex_);
  ++job.begun;
  write([&] {
    database_.prepare("UPDATE jobs SET state=?, begun=?, entry=? WHERE id=?")
        .bind(number_of(JobState::InProgress))
        .bind(job.begun)
        .bind(json_line(job_entry(job, JobState::InProgress)))
        .bind(job.id)
        .run();
  });
}

void Store::put_back(Job& job) {
  std::lock_guard lock(mutex_);
  --job.begun;
  write([&] { put(job, JobState::Pending); });
}

void Store::remove(const std::vector<std::string>& ids) {
  std::lock_guard lock(mutex_);
  write([&] {
    for (const auto& id : ids)
      database_.prepare("DELETE FROM jobs WHERE id=? AND ended IS NULL").bind(id).run();
  });
}

std::int64_t Store::next_end() {
  auto last = database_.prepare("SELECT max(ended) FROM jobs WHERE ended IS NOT NULL");
  last.step();
  return last.number(0) + 1;
}

void Store::finish(const Job& job, const Outcome& outcome) {
  std::lock_guard lock(mutex_);
  write([&] { put_end(job, outcome); });
}

void Store::put_end(const Job& job, const Outcome& outcome) {
  auto started = outcome.started_ms(), ended = outcome.ended_ms();
  put(job, outcome.state);
  database_
      .prepare(
          "UPDATE jobs SET ended=?, duration=?, outputs=?, meta=?, status=?, entry=? "
          "WHERE id=?")
      .bind(next_end())
      .bind(started && ended ? *ended - *started : 0)
      .bind(json_line(outcome.outputs))
      .bind(json_line(outcome.meta))
      .bind(json_line(history_status(outcome)))
      .bind(json_line(job_entry(job, outcome)))
      .bind(job.id)
      .run();
  keep_limit();
}

void Store::keep_limit() {
  auto counted = database_.prepare("SELECT count(*) FROM jobs WHERE ended IS NOT NULL");
  counted.step();
  auto surplus = counted.number(0) - options_.history_limit;
  if (surplus <= 0) return;
  database_
      .prepare(
          "DELETE FROM jobs WHERE ended IN (SELECT ended FROM jobs WHERE ended IS NOT NULL "
          "ORDER BY ended LIMIT ?)")
      .bind(surplus)
      .run();
}

std::string Store::history(std::optional<std::int64_t> most,
                           std::optional<std::int64_t> offset) const {
  std::lock_guard lock(mutex_);
  std::string result;
  read([&] {
    std::int64_t first = offset.value_or(0);
    if (!offset && most) {
      auto counted = database_.prepare("SELECT count(*) FROM jobs WHERE ended IS NOT NULL");
      counted.step();
      first = std::max<std::int64_t>(counted.number(0) - *most, 0);
    }
    auto rows = database_.prepare(std::string(kEntry) + " ORDER BY ended LIMIT ? OFFSET ?");
    rows.bind(most.value_or(-1)).bind(first);
    result = history_object(rows);
  });
  return result;
}

std::string Store::history(const std::string& id) const {
  std::lock_guard lock(mutex_);
  std::string result;
  read([&] {
    auto rows = database_.prepare(std::string(kEntry) + " AND id=?");
    rows.bind(id);
    result = history_object(rows);
  });
  return result;
}

bool Store::has_ended(const std::string& id) const {
  std::lock_guard lock(mutex_);
  bool found = false;
  read([&] {
    auto row = database_.prepare("SELECT 1 FROM jobs WHERE ended IS NOT NULL AND id=?");
    found = row.bind(id).step();
  });
  return found;
}

void Store::forget(const std::vector<std::string>& ids) {
  std::lock_guard lock(mutex_);
  write([&] {
    for (const auto& id : ids)
      database_.prepare("DELETE FROM jobs WHERE id=? AND ended IS NOT NULL").bind(id).run();
  });
}

void Store::forget_all() {
  std::lock_guard lock(mutex_);
  write([&] { database_.run("DELETE FROM jobs WHERE ended IS NOT NULL"); });
}

JobPage Store::list(const JobQuery& query) const {
  std::string condition = "1";
  if (!query.states.empty()) {
    condition = "state IN (";
    for (auto state : query.states) condition += fmt::format("{},", number_of(state));
    condition.back() = ')';
  }
  if (!query.workflow_id.empty()) condition += " AND workflow_id=?";
  auto bound = [&](Statement& statement) -> Statement& {
    if (!query.workflow_id.empty()) statement.bind(query.workflow_id);
    return statement;
  };
  auto direction = query.ascending ? "ASC" : "DESC";
  // Of equal ones the older come first, whatever the direction. The plus keeps SQLite from sorting
  // all rows of a state: it goes along the times and stops at the limit.
  auto filter = query.states.empty() ? condition : "+" + condition;
  auto selection =
      fmt::format("SELECT entry FROM jobs WHERE {} ORDER BY {} {}, rowid LIMIT ? OFFSET ?", filter,
                  query.by_duration ? "duration" : "created", direction);
  std::lock_guard lock(mutex_);
  JobPage page;
  read([&] {
    page = {.jobs = "["};
    auto counted = database_.prepare("SELECT count(*) FROM jobs WHERE " + condition);
    bound(counted).step();
    page.total = counted.number(0);
    auto rows = database_.prepare(selection);
    bound(rows).bind(query.limit.value_or(-1)).bind(query.offset);
    for (; rows.step(); ++page.count) {
      if (page.count) page.jobs += ',';
      page.jobs += rows.text(0);
    }
    page.jobs += ']';
  });
  return page;
}

Json Store::details(const std::string& id) const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> texts;
  read([&] {
    texts.clear();
    auto row = database_.prepare(
        "SELECT entry, outputs, status, prompt, extra_data FROM jobs WHERE ended IS NOT NULL AND "
        "id=?");
    if (!row.bind(id).step()) return;
    for (int column = 0; column < 5; ++column) texts.push_back(row.text(column));
  });
  if (texts.empty()) return nullptr;
  auto json = [&](std::size_t at) { return graph::parse_json(texts[at], database_.where()); };
  auto entry = json(0);
  entry["outputs"] = normal_outputs(json(1));
  entry["execution_status"] = json(2);
  entry["workflow"] = {{"prompt", json(3)}, {"extra_data", json(4)}};
  return entry;
}

}  // namespace distorch::server
