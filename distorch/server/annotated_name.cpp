#include "distorch/server/annotated_name.h"

#include "distorch/base/error.h"
#include "distorch/server/confined_path.h"

namespace distorch::server {

AnnotatedName annotated_name(const std::string& text) {
  for (const char* type : {"input", "output", "temp"}) {
    std::string ending = "[";
    ending += type;
    ending += ']';
    if (text.size() < ending.size() ||
        text.compare(text.size() - ending.size(), ending.size(), ending) != 0)
      continue;
    auto name = text.substr(0, text.size() - ending.size());
    if (!name.empty() && name.back() == ' ') name.pop_back();
    return {name, type};
  }
  return {text, ""};
}

std::filesystem::path place_of(const FileAddress& address, const FileFolders& folders) {
  const auto* folder = folders.of_type(address.type);
  if (!folder) throw Error(ErrorKind::Usage, "type", "is none of input, output and temp");
  std::filesystem::path below;
  try {
    below = confined_path(*folder, address.subfolder);
  } catch (const Error& error) {
    throw Error(ErrorKind::Usage, "subfolder", error.what());
  }
  auto file = confined_file(below, address.name);
  // The subfolder may be a link within the folder; the file must not be one out of the whole.
  if (!lies_within(*folder, file))
    throw Error(ErrorKind::Usage, "filename", "leads out of its folder through a link");
  return file;
}

}  // namespace distorch::server
