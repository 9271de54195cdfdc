// A tool for convert_templates.py: converts workflows by the definitions of a server and writes what
// came out, one line of JSON a file: {"file", "api"} or {"file", "error"}.
//   convert_workflow OBJECT_INFO.json [--keep-unknown] WORKFLOW.json...
#include <fstream>
#include <iostream>
#include <sstream>

#include "distorch/graph/json_text.h"
#include "distorch/graph/ui_to_api.h"

namespace {

using namespace distorch;

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorKind::Usage, path, "cannot be read");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

graph::Json convert(const std::string& path, const graph::Definitions& definitions,
                    graph::ConvertOptions options) {
  graph::Json line = {{"file", path}};
  options.where = path;
  try {
    line["api"] = graph::load_prompt(read(path), definitions, options).nodes;
  } catch (const Error& error) {
    line["error"] = error.what();
  }
  return line;
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw Error(ErrorKind::Usage, "convert_workflow", "needs an object_info");
  const graph::Definitions definitions(graph::parse_json(read(arguments[0]), arguments[0]));
  graph::ConvertOptions options;
  for (std::size_t i = 1; i < arguments.size(); ++i)
    if (arguments[i] == "--keep-unknown")
      options.unknown_types = graph::UnknownTypes::Keep;
    else
      std::cout << convert(arguments[i], definitions, options).dump() << "\n";
  return 0;
}

}  // namespace

int main(int count, char** values) {
  try {
    return run({values + 1, values + count});
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
