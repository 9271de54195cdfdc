#include "distorch/server/userdata_routes.h"

#include "tests/server/ask.h"

using namespace distorch;
using namespace distorch::server;
using namespace distorch::test;
namespace fs = std::filesystem;

namespace {

struct UserServer {
  explicit UserServer(const std::string& name, bool several = false)
      : folder(name), users(folder.path(), several) {
    add_userdata_routes(router, state);
  }
  fs::path root() const { return folder.path() / "default"; }
  int put(const std::string& name, const std::string& content, const std::string& query = "") {
    return post(router, "/userdata/" + name + query, content).status;
  }
  int status(const std::string& address) { return get(router, address).status; }

  TemporaryFolder folder;
  Users users;
  UserdataState state{users};
  Router router;
};

}  // namespace

TEST_CASE("userdata: a file is written, read, listed, moved and removed") {
  UserServer server("userdata");
  auto answer = post(server.router, "/api/userdata/workflows%2Fa%20b.json?overwrite=false", "{}");
  CHECK(json_of(answer) == "workflows/a b.json");
  CHECK(read_file(server.root() / "workflows" / "a b.json") == "{}");
  auto read = get(server.router, "/api/userdata/workflows%2Fa%20b.json");
  CHECK(content_of(read) == "{}");
  CHECK(header_of(read, "Content-Type") == "application/json");
  CHECK(header_of(read, "Content-Disposition").find("attachment") == 0);
  CHECK(server.put("workflows%2Fa%20b.json", "new", "?overwrite=false") == 409);
  CHECK(server.put("workflows%2Fa%20b.json", "new", "?overwrite=true") == 200);
  CHECK(content_of(get(server.router, "/userdata/workflows%2Fa%20b.json")) == "new");

  auto info = json_of(post(server.router, "/userdata/workflows%2Fc.json?full_info=true", "12345"));
  CHECK(info["path"] == "workflows/c.json");
  CHECK(info["size"] == 5);
  CHECK(info["modified"].is_number_integer());
  CHECK(info["modified"].get<std::int64_t>() > 1'700'000'000'000);
  CHECK(info["created"].get<std::int64_t>() > 1'700'000'000'000);

  auto move = "/userdata/workflows%2Fc.json/move/workflows%2Fsub%2Fd.json?overwrite=false";
  CHECK(json_of(post(server.router, move, "")) == "workflows/sub/d.json");
  CHECK(server.status("/userdata/workflows%2Fc.json") == 404);
  CHECK(content_of(get(server.router, "/userdata/workflows%2Fsub%2Fd.json")) == "12345");
  CHECK(post(server.router, move, "").status == 404);
  server.put("workflows%2Fc.json", "other");
  CHECK(post(server.router, move, "").status == 409);
  CHECK(content_of(get(server.router, "/userdata/workflows%2Fsub%2Fd.json")) == "12345");
  auto over = "/userdata/workflows%2Fc.json/move/workflows%2Fsub%2Fd.json?full_info=true";
  CHECK(json_of(post(server.router, over, ""))["size"] == 5);
  CHECK(content_of(get(server.router, "/userdata/workflows%2Fsub%2Fd.json")) == "other");

  CHECK(ask(server.router, Method::Delete, "/userdata/workflows%2Fsub%2Fd.json").status == 204);
  CHECK(ask(server.router, Method::Delete, "/userdata/workflows%2Fsub%2Fd.json").status == 404);
  CHECK(ask(server.router, Method::Delete, "/userdata/workflows%2Fsub").status == 400);
  CHECK(server.put("workflows", "x") == 400);
}

TEST_CASE("userdata: lists in each of their forms") {
  UserServer server("userdata_lists");
  for (const char* name :
       {"b.json", "a.json", "sub/c.json", "sub/deep/d.json", ".index.json", ".hidden/e.json"})
    write(server.root() / "workflows" / name, "12");
  auto list = [&](const std::string& query) {
    return json_of(get(server.router, "/userdata?dir=workflows" + query));
  };
  CHECK(list("").dump() == R"(["a.json","b.json"])");
  CHECK(list("&recurse=true").dump() == R"(["a.json","b.json","sub/c.json","sub/deep/d.json"])");
  CHECK(list("&recurse=True&split=true")[3].dump() ==
        R"(["sub/deep/d.json","sub","deep","d.json"])");
  auto full = list("&recurse=true&split=true&full_info=true");
  CHECK(full[2]["path"] == "sub/c.json");
  CHECK(full[2]["size"] == 2);
  CHECK(server.status("/userdata?dir=workflows/sub") == 200);
  CHECK(server.status("/userdata") == 400);
  CHECK(server.status("/userdata?dir=") == 400);
  CHECK(server.status("/userdata?dir=subgraphs") == 404);
  for (const char* dir : {"..", "../..", "/etc", "workflows/../..", "%252e%252e", "..%5C.."})
    CHECK_MESSAGE(server.status(std::string("/userdata?dir=") + dir) == 403, dir);
}

TEST_CASE("userdata: the tree of everything") {
  UserServer server("userdata_tree");
  CHECK(json_of(get(server.router, "/v2/userdata")).dump() == "[]");
  write(server.root() / "B.txt", "123");
  write(server.root() / "a" / "c.txt", "1");
  write(server.root() / ".x", "1");
  auto all = json_of(get(server.router, "/v2/userdata"));
  std::vector<std::string> paths;
  for (const auto& entry : all) paths.push_back(entry["path"]);
  CHECK(paths == std::vector<std::string>{"a", ".x", "B.txt", "a/c.txt"});
  CHECK(all[0].dump() == R"({"name":"a","path":"a","type":"directory"})");
  CHECK(all[2]["type"] == "file");
  CHECK(all[2]["size"] == 3);
  CHECK(all[2]["modified"].is_number_float());
  CHECK(json_of(get(server.router, "/api/v2/userdata?path=a"))[0]["path"] == "a/c.txt");
  CHECK(server.status("/v2/userdata?path=nope") == 404);
  CHECK(server.status("/v2/userdata?path=B.txt") == 400);
  CHECK(server.status("/v2/userdata?path=../..") == 400);
}

TEST_CASE("userdata: nothing outside of the user's folder is read or written") {
  UserServer server("userdata_outside");
  write(server.folder.path() / "secret.json", "secret");
  fs::create_directories(server.root());
  fs::create_symlink(server.folder.path() / "secret.json", server.root() / "link.json");
  fs::create_directory_symlink(server.folder.path(), server.root() / "away");
  for (const char* name :
       {"..%2Fsecret.json", "%2e%2e%2fsecret.json", "..%252fsecret.json",
        "%252e%252e%252fsecret.json", "..%5Csecret.json", "link.json", "away%2Fsecret.json",
        "%2Fetc%2Fpasswd", "C:%5Cx", "nul", "a%2F..%2F..%2Fsecret.json", "%ff.json", "a%0Ab"}) {
    CHECK_MESSAGE(server.status(std::string("/userdata/") + name) == 403, name);
    CHECK_MESSAGE(server.put(name, "x") == 403, name);
    CHECK_MESSAGE(
        ask(server.router, Method::Delete, std::string("/userdata/") + name).status == 403, name);
    server.put("mine.json", "mine");
    auto move = std::string("/userdata/mine.json/move/") + name;
    CHECK_MESSAGE(post(server.router, move, "").status == 403, name);
  }
  CHECK(read_file(server.folder.path() / "secret.json") == "secret");
  CHECK(json_of(get(server.router, "/v2/userdata")).size() == 1);
}

TEST_CASE("userdata: pages and scripts are not served as such; the page's own style sheet is") {
  UserServer server("userdata_types");
  for (const char* name : {"a.html", "a.js", "a.svg", "sub%2Fuser.css"}) {
    server.put(name, "<script>");
    auto answer = get(server.router, std::string("/userdata/") + name);
    CHECK(header_of(answer, "Content-Type") == "application/octet-stream");
    CHECK(header_of(answer, "Content-Disposition").find("attachment") == 0);
    CHECK(header_of(answer, "X-Content-Type-Options") == "nosniff");
  }
  server.put("user.css", "body {}");
  CHECK(header_of(get(server.router, "/userdata/user.css"), "Content-Type") == "text/css");
}

TEST_CASE("users: the only one") {
  UserServer server("users_one");
  CHECK(json_of(get(server.router, "/users")).dump() == R"({"storage":"server","migrated":false})");
  server.put("a.json", "{}");
  CHECK(json_of(get(server.router, "/api/users"))["migrated"] == true);
  // The header counts for nothing.
  CHECK(get(server.router, "/userdata/a.json", {{"comfy-user", "someone"}}).status == 200);
  CHECK(post(server.router, "/users", R"({"username":"x"})").status == 400);
}

TEST_CASE("users: several, remembered over a restart, each with files of their own") {
  UserServer server("users_several", true);
  CHECK(json_of(get(server.router, "/users")).dump() == R"({"storage":"server","users":{}})");
  auto id = json_of(post(server.router, "/users", R"({"username":" Jane D. "})"));
  REQUIRE(id.is_string());
  CHECK(id.get<std::string>().rfind("Jane-D-_", 0) == 0);
  auto twice = json_of(post(server.router, "/users", R"({"username":"Jane D."})"), 400);
  CHECK(twice["error"] == "Duplicate username.");
  for (const char* body :
       {R"({"username":""})", R"({"username":"__x"})", R"({"username":7})", R"({})", R"([])", "{"})
    CHECK_MESSAGE(post(server.router, "/users", body).status == 400, body);
  std::map<std::string, std::string> jane = {{"comfy-user", id.get<std::string>()}};
  CHECK(post(server.router, "/userdata/a.json", "jane's", jane).status == 200);
  CHECK(read_file(server.folder.path() / id.get<std::string>() / "a.json") == "jane's");
  for (const char* nobody : {"nobody", "__system", "..", "", "default"}) {
    CHECK(get(server.router, "/userdata/a.json", {{"comfy-user", nobody}}).status == 401);
    CHECK(get(server.router, "/v2/userdata", {{"comfy-user", nobody}}).status == 403);
  }
  Users again(server.folder.path(), true);
  CHECK(again.all() == server.users.all());
  CHECK(again.all().size() == 1);
}

TEST_CASE("users: a file of users that is none of ours is said at the start") {
  TemporaryFolder folder("users_broken");
  write(folder.path() / "users.json", "[1]");
  CHECK_THROWS_AS(Users(folder.path(), true), Error);
  write(folder.path() / "users.json", R"({"../x":"evil","__s":"system","ok_1":"Fine"})");
  CHECK(Users(folder.path(), true).all() == std::map<std::string, std::string>{{"ok_1", "Fine"}});
}
